//! The Remote Execution API's messages for directories, as far as they are read and written here.
//!
//! Derived from structures rather than generated from the `.proto` file: these are eight, and need no
//! compiler for protocol buffers at build time. The tags are those of `remote_execution.proto`
//! version 2, and of `google.protobuf.Timestamp` and `UInt32Value`. The list of further node
//! properties (tag 1 of `NodeProperties`) is passed over.

/// The content of one directory.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Directory {
    #[prost(message, repeated, tag = "1")]
    pub(super) files: Vec<FileNode>,
    #[prost(message, repeated, tag = "2")]
    pub(super) directories: Vec<DirectoryNode>,
    #[prost(message, repeated, tag = "3")]
    pub(super) symlinks: Vec<SymlinkNode>,
    #[prost(message, optional, tag = "5")]
    pub(super) node_properties: Option<NodeProperties>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FileNode {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) digest: Option<Digest>,
    #[prost(bool, tag = "4")]
    pub(super) is_executable: bool,
    #[prost(message, optional, tag = "6")]
    pub(super) node_properties: Option<NodeProperties>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DirectoryNode {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) digest: Option<Digest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SymlinkNode {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) target: String,
    #[prost(message, optional, tag = "4")]
    pub(super) node_properties: Option<NodeProperties>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct NodeProperties {
    #[prost(message, optional, tag = "2")]
    pub(super) mtime: Option<Timestamp>,
    #[prost(message, optional, tag = "3")]
    pub(super) unix_mode: Option<UInt32Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Digest {
    #[prost(string, tag = "1")]
    pub(super) hash: String,
    #[prost(int64, tag = "2")]
    pub(super) size_bytes: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct UInt32Value {
    #[prost(uint32, tag = "1")]
    pub(super) value: u32,
}
