//! Folders of the user, as the XDG specification has them: an absolute path in the environment, else below the home.

use std::path::PathBuf;

/// The folder that this variable names; what is no absolute path is as if it were not set.
pub fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where downloads are kept that can be had again.
pub fn cache() -> Option<PathBuf> {
    named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")))
}
