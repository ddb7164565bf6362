//! What a job sees and may do in its view, rule by rule. `fuse-daemon/SEMANTICS.md` is the list.

#[path = "view/inputs.rs"]
mod inputs;
#[path = "view/made.rs"]
mod made;
#[path = "view/steps.rs"]
pub(crate) mod steps;
