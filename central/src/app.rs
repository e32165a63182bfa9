//! Central as a whole: what REST and gRPC share, one file per noun, and the
//! one place that builds and spawns everything.

mod build;
mod claim;
mod context;
mod error;
mod files;
mod image;
mod keyed;
mod node;
mod orphan;
mod pool;
mod profile;
mod sandbox;
mod seed;
mod streams;
mod support;
mod template;
mod token;

pub use build::{App, Ends, StartError};
pub use claim::sweep::sweep as sweep_claims;
pub use claim::{Claim, ClaimAnswer};
pub use context::{Central, Scope, default_tenant};
pub use error::{Conflict, Noun, RequestError};
pub use files::{DownloadEvent, UploadEvent};
pub use image::{ImportEvent, PruneImages, Pruned, PullEvent, PullImages};
pub use keyed::{Kept, Keyed};
pub use sandbox::{Create, ListSandboxes, Update, Wish};
pub use seed::SeedError;
pub use streams::ExecRequest;
use token::keep_first_admin_token;
pub use token::{JoinTokenInfo, NewJoinTokenInfo, TokenError, issue_join_token, keep_admin_token, new_admin_token};
