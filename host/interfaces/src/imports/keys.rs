//! `mainstay:host/keys`: the plugin's own ordered keys, and transactions.
//!
//! Reads come from the call's view; what is written is collected in the store's transaction and checked there. The
//! limits of keys, values, pages and transactions are the store's.

use mainstay_base::Error;
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::keys::{
    Host, HostTransaction, KeyRange, Page, Receipt, ScanOptions, Transaction as Handle,
};
use mainstay_store as store;
use tracing::Instrument;
use wasmtime::component::Resource;

use crate::capabilities::KEYS;
use crate::state::State;

type Answer<T> = Result<T, Failure>;

impl Host for State {
    fn get(&mut self, key: Vec<u8>) -> Answer<Option<Vec<u8>>> {
        let _host = self.enter(KEYS)?;
        let plugin = self.plugin.clone();
        Ok(self.view().get(&plugin.space, &key)?.map(Vec::from))
    }

    fn get_many(&mut self, keys: Vec<Vec<u8>>) -> Answer<Vec<Option<Vec<u8>>>> {
        let _host = self.enter(KEYS)?;
        let plugin = self.plugin.clone();
        let values = self.view().get_many(&plugin.space, &keys)?;
        Ok(values.into_iter().map(|value| value.map(Vec::from)).collect())
    }

    fn scan(&mut self, ranges: Vec<KeyRange>, options: ScanOptions) -> Answer<Page> {
        let _host = self.enter(KEYS)?;
        let plugin = self.plugin.clone();
        let ranges: Vec<_> = ranges.into_iter().map(range).collect();
        let ScanOptions { reverse, keys_only, limit, after } = options;
        let options = store::ScanOptions { reverse, keys_only, limit, after };
        let store::Page { entries, count, next } = self.view().scan(&plugin.space, &ranges, &options)?;
        Ok(Page { entries, count, next })
    }

    fn renew(&mut self) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        State::renew(self);
        Ok(())
    }

    fn begin(&mut self) -> Answer<Resource<Handle>> {
        let _host = self.enter(KEYS)?;
        let plugin = self.plugin.clone();
        let transaction = plugin.services.store.begin(self.view());
        Ok(self.transactions.add(transaction)?)
    }
}

fn range(range: KeyRange) -> store::KeyRange {
    store::KeyRange { start: range.start, end: range.end }
}

impl HostTransaction for State {
    fn expect_absent(&mut self, tx: Resource<Handle>, key: Vec<u8>) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.expect_absent(&self.plugin.space, &key)?)
    }

    fn expect_present(&mut self, tx: Resource<Handle>, key: Vec<u8>) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.expect_present(&self.plugin.space, &key)?)
    }

    fn expect_value(&mut self, tx: Resource<Handle>, key: Vec<u8>, value: Vec<u8>) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.expect_value(&self.plugin.space, &key, value)?)
    }

    fn expect_unchanged(&mut self, tx: Resource<Handle>, key: Vec<u8>) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.expect_unchanged(&self.plugin.space, &key)?)
    }

    fn put(&mut self, tx: Resource<Handle>, key: Vec<u8>, value: Vec<u8>) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.put(&self.plugin.space, &key, value)?)
    }

    fn delete(&mut self, tx: Resource<Handle>, key: Vec<u8>) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.delete(&self.plugin.space, &key)?)
    }

    fn delete_range(&mut self, tx: Resource<Handle>, within: KeyRange) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.delete_range(&self.plugin.space, &range(within))?)
    }

    fn append(&mut self, tx: Resource<Handle>, key: Vec<u8>, fragment: Vec<u8>) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.append(&self.plugin.space, &key, fragment)?)
    }

    fn add(&mut self, tx: Resource<Handle>, key: Vec<u8>, amount: i64) -> Answer<()> {
        let _host = self.enter(KEYS)?;
        Ok(self.transactions.get(&tx)?.add(&self.plugin.space, &key, amount)?)
    }

    async fn commit(&mut self, tx: Resource<Handle>) -> Answer<Receipt> {
        let _host = self.enter(KEYS)?;
        let transaction = self.transactions.take(&tx)?;
        let store = self.plugin.services.store.clone();
        let outcome = store.commit(transaction).instrument(commit_span()).await;
        self.committed(&outcome).await;
        let receipt = outcome.map_err(shown_to_plugin)?;
        Ok(Receipt { sequence: receipt.sequence, counters: receipt.counters })
    }

    fn drop(&mut self, tx: Resource<Handle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.transactions.drop(&tx);
        Ok(())
    }
}

/// A commit in the request's trace: the time that the guards, the log and its disk took.
fn commit_span() -> tracing::Span {
    tracing::info_span!(target: "mainstay::request", "commit", otel.kind = "internal")
}

/// A commit's failure as the plugin sees it.
fn shown_to_plugin(error: Error) -> Failure {
    Failure::Answer(error)
}
