//! The daemon's socket: requests in, replies out, descriptors passed. No logic.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use cas::look::{Look, Page};
use cas::protocol::{self, Registration, Reply, Request, Status};
use serde::Serialize;

use crate::fuse::{self, Session};
use crate::job::Job;
use crate::known::Key;
use crate::mounts;
use crate::registry::{JobId, RegisterError, Registry};
use crate::view::Time;

/// How long the end of a file system may take after the last process of its job has died. More
/// means that a process outside has a file of it open.
const END_LIMIT: Duration = Duration::from_secs(1);

/// What every connection needs to know of the daemon.
#[derive(Debug)]
pub struct Context {
    /// All jobs.
    pub registry: Registry,
    /// Whether the kernel may be given backing files.
    pub passthrough: bool,
    /// Build of the binary.
    pub build: String,
    /// Name of the store.
    pub store: String,
    /// When the daemon started.
    pub started: Instant,
    /// Told when the daemon is asked to end.
    pub stop: Stop,
    /// The clock.
    pub now: fn() -> Time,
}

/// What to do when the daemon is asked to end.
pub struct Stop(pub Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

/// What is said, and what goes with it; or why not, for people.
type Answer = Result<(Reply, Option<OwnedFd>), String>;

/// What a look shows.
enum Seen {
    Page(Page),
    File(File),
}

/// One connection: at most one job, which ends with it.
struct Connection<'c> {
    context: &'c Context,
    socket: OwnedFd,
    registration: Option<Registration>,
    job: Option<(JobId, Arc<Job>)>,
    session: Option<Session>,
}

/// Serves one connection to its end. What goes wrong in it concerns this connection only.
pub fn serve(context: &Context, socket: OwnedFd) {
    stay_with_client(&socket);
    let mut connection = Connection {
        context,
        socket,
        registration: None,
        job: None,
        session: None,
    };
    if let Err(error) = connection.run() {
        tracing::warn!("a connection ended with an error: {error}");
    }
    if let Some((id, _)) = &connection.job {
        context.registry.release(*id);
    }
}

/// Has this thread, and with it the readers of its session, run where the client may: whoever binds
/// a job to a CPU (`taskset`, a build tool) has its questions answered there, too. A round trip is
/// four to seven times as fast on one CPU as between two of a virtual machine. Where it cannot be
/// done, only time is lost.
fn stay_with_client(socket: &OwnedFd) {
    let client = socket_peercred(socket);
    if let Ok(cpus) = client.and_then(|client| sched_getaffinity(Some(client.pid))) {
        let _anywhere = sched_setaffinity(None, &cpus);
    }
}

impl Connection<'_> {
    fn run(&mut self) -> io::Result<()> {
        while let Some((request, fds)) = protocol::receive::<Request>(self.socket.as_fd())? {
            tracing::debug!(?request, "request");
            let (reply, document) = match self.answer(request, fds) {
                Ok(answer) => answer,
                Err(refusal) => (Reply::Refused(refusal), None),
            };
            tracing::debug!(?reply, "reply");
            protocol::send(
                self.socket.as_fd(),
                &reply,
                document.as_ref().map(AsFd::as_fd),
            )?;
        }
        Ok(())
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        let mut fds = fds.into_iter();
        let reply = match request {
            Request::Register(registration) => self.register(registration)?,
            Request::Manifest => self.learn(attached(fds.next())?)?,
            Request::Serve => self.mount(attached(fds.next())?, fds.next())?,
            Request::Finish => return self.finish(),
            Request::Taken => {
                self.job()?
                    .give_away()
                    .map_err(|refusal| refusal.to_string())?;
                Reply::Released
            }
            Request::Discard => {
                self.discard();
                Reply::Released
            }
            Request::Jobs => return self.jobs(),
            Request::Look { job, at } => return self.look(&job, &at),
            Request::Status => Reply::Status(self.status()),
            Request::Stop => {
                (self.context.stop.0)();
                Reply::Stopping
            }
        };
        Ok((reply, None))
    }

    fn register(&mut self, registration: Registration) -> Result<Reply, String> {
        if self.job.is_some() {
            return Err("this connection has a job already".into());
        }
        let known = self.context.registry.known(self.key(&registration));
        self.registration = Some(registration);
        match known {
            Some(inputs) => self.start(&inputs),
            None => Ok(Reply::SendManifest),
        }
    }

    fn learn(&mut self, document: OwnedFd) -> Result<Reply, String> {
        let registration = self.registration.as_ref();
        let key = self.key(registration.ok_or("no job is being registered")?);
        let bytes = protocol::read_manifest(document).map_err(|error| error.to_string())?;
        let inputs = self
            .context
            .registry
            .learn(&bytes, key)
            .map_err(|error| error.to_string())?;
        self.start(&inputs)
    }

    /// What is known of a manifest is known for an hour, and then found again, so that a collector
    /// does not take what is used every day for old.
    fn key(&self, registration: &Registration) -> Key {
        Key {
            generation: registration.generation,
            hour: (self.context.now)().seconds.div_euclid(3600),
            digest: registration.manifest,
        }
    }

    fn start(&mut self, inputs: &cas::manifest::Resolved) -> Result<Reply, String> {
        let registration = self
            .registration
            .take()
            .ok_or("no job is being registered")?;
        let now = (self.context.now)();
        let started = self.context.registry.register(&registration, inputs, now);
        let (id, job) = started.map_err(|error: RegisterError| error.to_string())?;
        let staging = job.staging_name().to_owned();
        self.job = Some((id, job));
        Ok(Reply::Registered { staging })
    }

    fn job(&self) -> Result<&Arc<Job>, String> {
        self.job
            .as_ref()
            .map(|(_, job)| job)
            .ok_or_else(|| "no job is registered".into())
    }

    fn mount(&mut self, device: OwnedFd, processes: Option<OwnedFd>) -> Result<Reply, String> {
        if self.session.is_some() {
            return Err("the job's view is mounted already".into());
        }
        // What is none would be waited for, perhaps for ever.
        if !mounts::is_fuse(device.as_fd()) {
            return Err("the attached descriptor is not /dev/fuse".into());
        }
        if processes
            .as_ref()
            .is_some_and(|fd| !mounts::is_proc(fd.as_fd()))
        {
            return Err("the second attached descriptor is not of a /proc".into());
        }
        let passthrough = self.context.passthrough;
        let session = fuse::serve(self.job()?.clone(), device, processes, passthrough);
        self.session = Some(session.map_err(|error| format!("cannot serve the view: {error}"))?);
        Ok(Reply::Serving)
    }

    fn finish(&mut self) -> Answer {
        let ended = self.session.as_ref().is_none_or(end);
        let counts = self.session.iter().flat_map(Session::counts);
        let requests = counts.map(|(name, count)| (name.to_owned(), count));
        let requests: BTreeMap<_, _> = requests.collect();
        self.context.registry.add_requests(&requests);
        let report = self
            .job()?
            .report(!ended, requests)
            .map_err(|refusal| refusal.to_string())?;
        Ok((Reply::Report, Some(document(&report)?)))
    }

    /// Ends the job. When the file system has ended, too, its staging directory is gone.
    fn discard(&mut self) {
        if let Some(session) = self.session.take() {
            end(&session);
        }
        if let Some((id, job)) = self.job.take() {
            self.context.registry.release(id);
            drop(job);
        }
    }

    /// All jobs, the oldest first.
    fn jobs(&self) -> Answer {
        let jobs = self.context.registry.all();
        let mut running: Vec<_> = jobs.iter().filter_map(|job| job.running().ok()).collect();
        running.sort_by_key(|job| std::cmp::Reverse(job.age_ms));
        Ok((Reply::Jobs, Some(document(&running)?)))
    }

    fn look(&self, job: &str, at: &Look) -> Answer {
        let found = self.context.registry.find(job);
        let job = found.ok_or_else(|| format!("there is no running job {job}"))?;
        let seen = match at {
            Look::At { path, from } => job.look_at(path.as_ref(), *from).map(Seen::Page),
            Look::Outputs { after } => job.look_at_outputs(after.as_ref()).map(Seen::Page),
            Look::File { path } => job.look_into(path).map(Seen::File),
        };
        match seen.map_err(|refusal| refusal.to_string())? {
            Seen::Page(page) => Ok((Reply::Seen, Some(document(&page)?))),
            Seen::File(file) => Ok((Reply::Seen, Some(file.into()))),
        }
    }

    fn status(&self) -> Status {
        let (jobs_running, jobs_served) = self.context.registry.counts();
        Status {
            pid: std::process::id(),
            build: self.context.build.clone(),
            store: self.context.store.clone(),
            uptime: self.context.started.elapsed().as_secs(),
            jobs_running,
            jobs_served,
            fuse_ops: self.context.registry.requests(),
        }
    }
}

/// Waits for the end of a job's file system, and makes one if it does not come: a process outside
/// that has a file of it open must not keep what the job staged for ever. `false` if it did not
/// come, so that something may have been written since.
fn end(session: &Session) -> bool {
    let ended = session.wait(END_LIMIT);
    if !ended {
        session.abort(END_LIMIT);
    }
    ended
}

fn document(content: &impl Serialize) -> Result<OwnedFd, String> {
    let bytes = serde_json::to_vec(content).map_err(|error| error.to_string())?;
    protocol::write_document(&bytes).map_err(|error| error.to_string())
}

fn attached(fd: Option<OwnedFd>) -> Result<OwnedFd, String> {
    fd.ok_or_else(|| "the request came without its descriptor".into())
}
