//! What a job declares, on its way to the daemon and to collectors.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use cas::manifest::Manifest;
use cas::manifest::cache::{self, Cache};
use cas::{Digest, Store, protocol};

use crate::sandbox;

/// A manifest, in memory or kept by an earlier job.
#[derive(Debug)]
pub struct Declaration {
    digest: Digest,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Bytes {
        bytes: Vec<u8>,
        /// What came of keeping them, which is tried once.
        kept: OnceCell<Option<(Cache, File)>>,
    },
    Kept(File),
}

impl From<&Manifest> for Declaration {
    fn from(manifest: &Manifest) -> Self {
        Self::new(manifest.encode())
    }
}

impl Declaration {
    /// By the bytes of a manifest.
    pub fn new(bytes: Vec<u8>) -> Self {
        if bytes.len() >= cache::WORTH_IT {
            sandbox::start_hashing_threads();
        }
        let digest = Digest::of_large(&bytes);
        let kept = OnceCell::new();
        let form = Form::Bytes { bytes, kept };
        Self { digest, form }
    }

    /// By the digest and the size of a manifest that the store at `root` may have kept.
    pub fn kept(digest: Digest, size: u64, root: &Path) -> Option<Self> {
        let file = Cache::at(root)?.find(digest, size)?;
        let form = Form::Kept(file);
        Some(Self { digest, form })
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes as the daemon takes them: a file that is kept from now on, or one in memory.
    ///
    /// # Errors
    /// No memory. What was kept cannot be read, or is damaged, and then is kept no more.
    pub fn document(&self, store: &Store) -> io::Result<OwnedFd> {
        match &self.form {
            Form::Bytes { bytes, kept } => match kept.get_or_init(|| self.keep(bytes, store)) {
                Some((_, file)) => Ok(file.try_clone()?.into()),
                None => protocol::write_document(bytes),
            },
            Form::Kept(_) => {
                let bytes = self.bytes()?;
                if Digest::of_large(&bytes) == self.digest {
                    return protocol::write_document(&bytes);
                }
                if let Some(cache) = Cache::at(store.root()) {
                    cache.remove(self.digest);
                }
                Err(io::Error::new(io::ErrorKind::InvalidData, DAMAGED))
            }
        }
    }

    /// Says in a staging directory what the job uses.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn write_inputs(&self, store: &Store, staging: &str) -> cas::Result<()> {
        let link = |cache: &Cache| cache.link_inputs(self.digest, store, staging);
        let linked = match &self.form {
            Form::Bytes { bytes, kept } => {
                let kept = kept.get_or_init(|| self.keep(bytes, store));
                kept.as_ref().map(|(cache, _)| link(cache))
            }
            Form::Kept(_) => Cache::at(store.root()).as_ref().map(link),
        };
        if let Some(Ok(())) = linked {
            return Ok(());
        }
        let bytes = self.bytes();
        let bytes = bytes.map_err(|error| cas::Error::io("read", "the manifest kept", error))?;
        store.write_inputs(staging, &bytes)
    }

    /// Keeps a manifest that is large enough, if that can be done.
    fn keep(&self, bytes: &[u8], store: &Store) -> Option<(Cache, File)> {
        if bytes.len() < cache::WORTH_IT {
            return None;
        }
        let cache = Cache::of(store).ok()?;
        let kept = cache.keep(self.digest, bytes);
        if let Err(error) = &kept {
            tracing::debug!("the manifest is not kept: {error}");
        }
        Some((cache, kept.ok()?))
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match &self.form {
            Form::Bytes { bytes, .. } => Ok(bytes.into()),
            Form::Kept(file) => {
                let (mut file, mut bytes) = (file.try_clone()?, Vec::new());
                file.rewind()?;
                file.read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }
}

const DAMAGED: &str = "the manifest in index/manifests of the store was damaged, and is removed now; \
                       run the job again";
