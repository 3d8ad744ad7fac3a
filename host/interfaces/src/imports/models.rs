//! `mainstay:numeric/models`: models loaded by digest and applied to frames.
//!
//! Loads through the host's shelf, so that a model is read once for all calls; a plugin loads only what one of its names refers
//! to. Bounded by: [`MODELS_MAX`] handles, [`BACKGROUND_ROWS_MAX`], the batcher's queue, and the plugin's budget for what is
//! answered. On failure: a typed error to the plugin.

use std::sync::Arc;

use mainstay_arrays::{Column as Held, Frame as HeldFrame};
use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::numeric::arrays::{Column as ColumnHandle, Frame as FrameHandle};
use mainstay_bindings::mainstay::numeric::models::{Host, HostModel, Model as ModelHandle, Output};
use mainstay_kernels::{HeldRows, Loaded};
use mainstay_models as models;
use wasmtime::component::Resource;

use crate::capabilities::MODELS;
use crate::imports::arrays::ended;
use crate::state::State;

/// Models that a call may hold.
pub const MODELS_MAX: usize = 64;
/// Rows that a background may have.
pub const BACKGROUND_ROWS_MAX: usize = 1_000;

type Answer<T> = Result<T, Failure>;
type Model = Resource<ModelHandle>;

impl Host for State {}

impl State {
    /// The model, and the frame's columns in its order.
    fn bound(&mut self, model: &Model, rows: &Resource<FrameHandle>) -> HostResult<(Arc<Loaded>, HeldRows)> {
        self.check_unguarded("apply models")?;
        let model = self.models.get(model)?.clone();
        let rows = in_order(&model, self.frames.get(rows)?)?;
        Ok((model, rows))
    }

    /// Columns of 64-bit reals out of answers row after row.
    fn columns_of(&mut self, values: &[f64], width: usize) -> HostResult<Vec<Resource<ColumnHandle>>> {
        let most = self.plugin.budget.charge(size_of_val(values))?;
        let column = |at: usize| values.iter().skip(at).step_by(width).copied().collect::<Vec<f64>>();
        let columns: Vec<Held> = (0..width).map(|at| Held::f64(&column(at), None)).collect();
        drop(most);
        columns.into_iter().map(|column| self.hold(column)).collect()
    }
}

/// By name where the model's names are all there, else by place.
pub(crate) fn in_order(model: &Loaded, frame: &HeldFrame) -> HostResult<HeldRows> {
    let features = model.model().features();
    let by_name: Option<Vec<Held>> = features.iter().map(|feature| frame.column(&feature.name).ok().cloned()).collect();
    if let Some(columns) = by_name {
        return Ok(HeldRows::Columns(columns));
    }
    if frame.columns().len() == features.len() {
        return Ok(HeldRows::Columns(frame.columns().iter().map(|(_, column)| column.clone()).collect()));
    }
    let missing = features.iter().find(|feature| frame.column(&feature.name).is_err());
    Err(Error::invalid(format!(
        "a frame of {} columns for a model of {} features; the first that is not there is `{}`",
        frame.columns().len(),
        features.len(),
        missing.map_or("", |feature| &feature.name)
    )))
}

impl HostModel for State {
    async fn load(&mut self, sha256: String) -> Answer<Model> {
        let _host = self.enter(MODELS)?;
        let services = &self.plugin.services;
        if !services.blobs.readable_by(&self.plugin.space, &sha256)? {
            return Err(Error::not_found(format!(
                "no name of the plugin `{}` refers to the blob {sha256}; link it to a name first",
                self.plugin.name
            ))
            .into());
        }
        let loaded = services.model(&sha256).await?;
        Ok(self.models.add(loaded)?)
    }

    fn format(&mut self, model: Model) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.models.get(&model).map_err(ended)?.model().format().name().to_lowercase())
    }

    fn features(&mut self, model: Model) -> wasmtime::Result<Vec<String>> {
        let _host = self.ambient()?;
        let features = self.models.get(&model).map_err(ended)?.model().features();
        Ok(features.iter().map(|feature| feature.name.clone()).collect())
    }

    fn outputs(&mut self, model: Model) -> wasmtime::Result<u32> {
        let _host = self.ambient()?;
        let model = self.models.get(&model).map_err(ended)?;
        Ok(model.model().width(models::Output::Score).map_err(ended)? as u32)
    }

    async fn predict(
        &mut self,
        model: Model,
        rows: Resource<FrameHandle>,
        what: Output,
    ) -> Answer<Vec<Resource<ColumnHandle>>> {
        let _host = self.enter(MODELS)?;
        let (model, rows) = self.bound(&model, &rows)?;
        let what = match what {
            Output::Score => models::Output::Score,
            Output::Raw => models::Output::Raw,
            Output::Leaf => models::Output::Leaf,
            Output::Label => models::Output::Label,
        };
        let width = model.model().width(what)?;
        let most = self.plugin.budget.charge(rows.count().saturating_mul(width).saturating_mul(8))?;
        let values = self.plugin.caller.predict(model, rows, what).await?;
        drop(most);
        Ok(self.columns_of(&values, width)?)
    }

    async fn explain(
        &mut self,
        model: Model,
        rows: Resource<FrameHandle>,
        background: Option<Resource<FrameHandle>>,
    ) -> Answer<Vec<Resource<ColumnHandle>>> {
        let _host = self.enter(MODELS)?;
        let background = match background {
            None => None,
            Some(background) => Some(self.bound(&model, &background)?.1),
        };
        if let Some(rows) = background.as_ref().map(HeldRows::count)
            && rows > BACKGROUND_ROWS_MAX
        {
            let words = format!("a background of {rows} rows; the most is {BACKGROUND_ROWS_MAX}: take a sample");
            return Err(Error::invalid(words).into());
        }
        let (model, rows) = self.bound(&model, &rows)?;
        let (features, count) = (model.model().features().len(), rows.count());
        let outputs = model.model().width(models::Output::Raw)?;
        let bytes = count.saturating_mul(outputs).saturating_mul(features).saturating_mul(8);
        let most = self.plugin.budget.charge(bytes)?;
        let (values, expected) = self.plugin.caller.explain(model, rows, background).await?;
        drop(most);
        let mut columns = self.columns_of(&values, outputs * features)?;
        // Behind the features of each output stands what is expected of it.
        for (output, expected) in expected.into_iter().enumerate() {
            let constant = self.hold(Held::f64(&vec![expected; count], None))?;
            columns.insert(output * (features + 1) + features, constant);
        }
        Ok(columns)
    }

    fn drop(&mut self, model: Model) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.models.drop(&model);
        Ok(())
    }
}
