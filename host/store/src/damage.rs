//! Damage, as types that other rooms can tell from every other failure.
//!
//! Both are causes inside an [`Error`] of the kind `internal`, whose message names what is damaged and the remedy. Separate
//! because whoever answers a request must know that asking again cannot help.

use std::error::Error as _;
use std::fmt;

use mainstay_base::Error;

/// A value of the ordered index that does not match its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedIndex {
    /// Name of the key space that it belongs to; `?` when the key says none.
    pub space: String,
}

/// A blob whose bytes are missing, or are not those that were stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlob {
    /// Its digest, lowercase hexadecimal.
    pub sha256: String,
    /// What is wrong with it.
    pub what: String,
}

impl DamagedIndex {
    /// The damage that an error is about, if it is this.
    pub fn of(error: &Error) -> Option<&DamagedIndex> {
        error.source()?.downcast_ref()
    }
}

impl DamagedBlob {
    /// The damage that an error is about, if it is this.
    pub fn of(error: &Error) -> Option<&DamagedBlob> {
        error.source()?.downcast_ref()
    }

    /// The error that names the blob and what to do.
    pub fn error(self) -> Error {
        let DamagedBlob { sha256, what } = &self;
        Error::internal(format!("blob {sha256} is damaged: {what}; store its bytes again, or restore it from a backup"))
            .with_source(self)
    }
}

impl fmt::Display for DamagedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a damaged value of `{}`", self.space)
    }
}

impl fmt::Display for DamagedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged blob {}: {}", self.sha256, self.what)
    }
}

impl std::error::Error for DamagedIndex {}
impl std::error::Error for DamagedBlob {}
