//! Tensors, endpoints, asks and lessons in a component.

use super::bindings::mainstay::fallback::asks as wit;
use super::bindings::mainstay::host::{tensors as wit_tensors, traffic as wit_traffic};
use crate::Result;
use crate::fallback::{Lesson, Reply};
use crate::tensors::{Datatype, Parameter, Tensor, TensorSpec};
use crate::traffic::{Assignment, Endpoint, Request, Response};

fn plain(tensor: wit_tensors::Tensor) -> Result<Tensor> {
    let wit_tensors::Tensor { name, datatype, shape, data } = tensor;
    Ok(Tensor { name, datatype: Datatype::parse(&datatype)?, shape, data })
}

fn all_plain(tensors: Vec<wit_tensors::Tensor>) -> Result<Vec<Tensor>> {
    tensors.into_iter().map(plain).collect()
}

fn wit_tensor(tensor: &Tensor) -> wit_tensors::Tensor {
    wit_tensors::Tensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.clone(),
        data: tensor.data.clone(),
    }
}

fn plain_parameters(parameters: Vec<wit_tensors::Parameter>) -> Vec<(String, Parameter)> {
    let value = |value| match value {
        wit_tensors::ParameterValue::Boolean(value) => Parameter::Boolean(value),
        wit_tensors::ParameterValue::Integer(value) => Parameter::Integer(value),
        wit_tensors::ParameterValue::Unsigned(value) => Parameter::Unsigned(value),
        wit_tensors::ParameterValue::Real(value) => Parameter::Real(value),
        wit_tensors::ParameterValue::Text(value) => Parameter::Text(value),
    };
    parameters.into_iter().map(|each| (each.name, value(each.value))).collect()
}

fn wit_parameter((name, value): &(String, Parameter)) -> wit_tensors::Parameter {
    let value = match value {
        Parameter::Boolean(value) => wit_tensors::ParameterValue::Boolean(*value),
        Parameter::Integer(value) => wit_tensors::ParameterValue::Integer(*value),
        Parameter::Unsigned(value) => wit_tensors::ParameterValue::Unsigned(*value),
        Parameter::Real(value) => wit_tensors::ParameterValue::Real(*value),
        Parameter::Text(value) => wit_tensors::ParameterValue::Text(value.clone()),
    };
    wit_tensors::Parameter { name: name.clone(), value }
}

fn specs(specs: Vec<wit_tensors::TensorSpec>) -> Result<Vec<TensorSpec>> {
    let spec = |spec: wit_tensors::TensorSpec| {
        Ok(TensorSpec { name: spec.name, datatype: Datatype::parse(&spec.datatype)?, shape: spec.shape })
    };
    specs.into_iter().map(spec).collect()
}

// ---- endpoints ----

pub fn infer(request: &Request) -> Result<Response> {
    let asked = wit_traffic::Request::new(&request.endpoint)?;
    request.inputs.iter().try_for_each(|input| asked.input(&wit_tensor(input)))?;
    request.parameters.iter().try_for_each(|parameter| asked.parameter(&wit_parameter(parameter)))?;
    request.outputs.iter().try_for_each(|output| asked.output(output))?;
    request.headers.iter().try_for_each(|(name, value)| asked.header(name, value))?;
    if let Some(tenant) = &request.tenant {
        asked.tenant(tenant)?;
    }
    if let Some(timeout_ms) = request.timeout_ms {
        asked.timeout_ms(timeout_ms)?;
    }
    let answered = wit_traffic::infer(asked)?;
    Ok(Response {
        model: answered.model(),
        version: answered.version(),
        run: answered.run(),
        variant: answered.variant(),
        fallback: answered.fallback(),
        headers: answered.headers(),
        outputs: all_plain(answered.outputs()?)?,
        parameters: plain_parameters(answered.parameters()),
    })
}

pub fn endpoints(after: Option<&str>, limit: u32) -> Result<Vec<String>> {
    Ok(wit_traffic::endpoints(after, limit)?)
}

pub fn find_endpoint(name: &str) -> Result<Option<Endpoint>> {
    let Some(found) = wit_traffic::find(name)? else { return Ok(None) };
    Ok(Some(Endpoint {
        name: found.name(),
        is_ready: found.is_ready(),
        plan_version: found.plan_version(),
        variants: found.variants(),
        inputs: specs(found.inputs())?,
        outputs: specs(found.outputs())?,
    }))
}

pub fn assign(endpoint: &str, key: &str) -> Result<Assignment> {
    let found = wit_traffic::assign(endpoint, key)?;
    Ok(Assignment { variant: found.variant(), plan_version: found.plan_version(), is_sticky: found.is_sticky() })
}

// ---- fallbacks ----

#[derive(Debug)]
pub struct Ask(pub(super) wit::Ask);

impl Ask {
    pub fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    pub fn variant(&self) -> Option<String> {
        self.0.variant()
    }

    pub fn why(&self) -> String {
        self.0.why()
    }

    pub fn tenant(&self) -> String {
        self.0.tenant()
    }

    pub fn rows(&self) -> u64 {
        self.0.rows()
    }

    pub fn inputs(&self) -> Result<Vec<Tensor>> {
        all_plain(self.0.inputs()?)
    }

    pub fn input(&self, name: &str) -> Result<Option<Tensor>> {
        self.0.input(name)?.map(plain).transpose()
    }

    pub fn parameters(&self) -> Vec<(String, Parameter)> {
        plain_parameters(self.0.parameters())
    }

    pub fn wanted(&self) -> Vec<String> {
        self.0.wanted()
    }

    pub fn remaining_ms(&self) -> u32 {
        self.0.remaining_ms()
    }
}

pub(super) fn wit_reply(reply: &Reply) -> Result<wit::Reply> {
    let made = wit::Reply::new(&reply.label)?;
    reply.outputs.iter().try_for_each(|output| made.output(&wit_tensor(output)))?;
    reply.parameters.iter().try_for_each(|parameter| made.parameter(&wit_parameter(parameter)))?;
    if let Some((name, version)) = &reply.model {
        made.model(name, version)?;
    }
    Ok(made)
}

pub(super) fn lesson(lesson: &wit::Lesson) -> Result<Lesson> {
    Ok(Lesson {
        endpoint: lesson.endpoint(),
        variant: lesson.variant(),
        tenant: lesson.tenant(),
        model: lesson.model(),
        version: lesson.version(),
        answered_ms: lesson.answered_ms(),
        inputs: all_plain(lesson.inputs())?,
        parameters: plain_parameters(lesson.parameters()),
        outputs: all_plain(lesson.outputs())?,
    })
}
