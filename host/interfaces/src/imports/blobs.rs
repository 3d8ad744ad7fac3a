//! `mainstay:host/blobs`: large immutable bytes by content, and the plugin's own names for them.
//!
//! Small bytes pass through here ([`CALL_BYTES_MAX`] a call); bodies of requests stream past the plugin. A plugin reads
//! only what one of its names refers to. Names and listings are bounded by the blob store.

use mainstay_base::Error;
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::blobs::{BlobInfo, Entry, Host, Listing};
use mainstay_bindings::mainstay::host::keys::Transaction as Handle;
use mainstay_store::blobs;
use wasmtime::component::Resource;

use crate::capabilities::BLOBS;
use crate::state::State;

/// Bytes that one call stores or reads.
pub const CALL_BYTES_MAX: usize = 4 << 20;

type Answer<T> = Result<T, Failure>;

impl Host for State {
    async fn put(&mut self, bytes: Vec<u8>) -> Answer<BlobInfo> {
        let _host = self.enter(BLOBS)?;
        check_size(bytes.len(), "store the rest through a request's body")?;
        let blobs = self.plugin.services.blobs.clone();
        Ok(info(blobs.put_bytes(bytes.into()).await?))
    }

    async fn read(&mut self, sha256: String, offset: u64, length: u32) -> Answer<Vec<u8>> {
        let _host = self.enter(BLOBS)?;
        check_size(length as usize, "read the rest with further calls")?;
        let blobs = self.plugin.services.blobs.clone();
        if !blobs.readable_by(&self.plugin.space, &sha256)? {
            return Err(Error::not_found(format!(
                "no name of the plugin `{}` refers to the blob {sha256}; link it to a name first",
                self.plugin.name
            ))
            .into());
        }
        let range = offset..offset.saturating_add(length.into());
        Ok(blobs.get_bytes(&sha256, Some(range)).await?.into())
    }

    fn stat(&mut self, sha256: String) -> Answer<Option<BlobInfo>> {
        let _host = self.enter(BLOBS)?;
        Ok(self.plugin.services.blobs.stat(&sha256)?.map(info))
    }

    fn lookup(&mut self, name: String) -> Answer<Option<BlobInfo>> {
        let _host = self.enter(BLOBS)?;
        Ok(self.plugin.services.blobs.lookup(&self.plugin.space, &name)?.map(info))
    }

    fn names(
        &mut self,
        prefix: String,
        delimiter: Option<String>,
        after: Option<String>,
        limit: u32,
    ) -> Answer<Listing> {
        let _host = self.enter(BLOBS)?;
        let plugin = &self.plugin;
        let found =
            plugin.services.blobs.names(&plugin.space, &prefix, delimiter.as_deref(), after.as_deref(), limit)?;
        let entries = found.entries.into_iter().map(|entry| match entry {
            blobs::ListingEntry::Name(name, blob) => Entry::Name((name, info(blob))),
            blobs::ListingEntry::Prefix(prefix) => Entry::Prefix(prefix),
        });
        Ok(Listing { entries: entries.collect(), next: found.next })
    }

    fn link(&mut self, tx: Resource<Handle>, name: String, sha256: String) -> Answer<()> {
        let _host = self.enter(BLOBS)?;
        Ok(blobs::link(self.transactions.get(&tx)?, &self.plugin.space, &name, &sha256)?)
    }

    fn unlink(&mut self, tx: Resource<Handle>, name: String) -> Answer<()> {
        let _host = self.enter(BLOBS)?;
        Ok(blobs::unlink(self.transactions.get(&tx)?, &self.plugin.space, &name)?)
    }
}

fn info(info: blobs::BlobInfo) -> BlobInfo {
    let blobs::BlobInfo { sha256, md5, size_bytes } = info;
    BlobInfo { sha256, md5, size_bytes }
}

fn check_size(bytes: usize, instead: &str) -> mainstay_base::Result<()> {
    if bytes <= CALL_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(format!("{bytes} bytes in one call; the most is {CALL_BYTES_MAX}: {instead}")))
}
