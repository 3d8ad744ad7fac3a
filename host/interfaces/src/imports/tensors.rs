//! `mainstay:host/tensors`: tensors and parameters, between the contract's form and the protocol's.
//!
//! Bounded by: the limits of each request, held by who takes a tensor in. On failure: `invalid`, naming the tensor.

use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::mainstay::host::tensors::{
    Host, Parameter as WireParameter, ParameterValue, Tensor as WireTensor, TensorSpec,
};
use mainstay_inference::limits::{DIMENSIONS_MAX, NAME_BYTES_MAX};
use mainstay_inference::{Datatype, Parameter, Tensor, TensorMetadata};

use crate::state::State;

impl Host for State {}

/// The protocol's form, if data, datatype and shape agree and nothing is too long.
pub(crate) fn from_wire(tensor: WireTensor) -> HostResult<Tensor> {
    check_name(&tensor.name)?;
    let dimensions = tensor.shape.len();
    if dimensions > DIMENSIONS_MAX {
        let name = &tensor.name;
        return Err(Error::invalid(format!("tensor `{name}` has {dimensions} dimensions; at most {DIMENSIONS_MAX}")));
    }
    Tensor::new(tensor.name, Datatype::parse(&tensor.datatype)?, &tensor.shape, tensor.data.into())
}

/// The contract's form.
pub(crate) fn to_wire(tensor: &Tensor) -> WireTensor {
    WireTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.to_vec(),
        data: tensor.data.to_vec(),
    }
}

/// All of them in the contract's form; `exhausted` when they have more than this many bytes.
pub(crate) fn all_to_wire(what: &str, tensors: &[Tensor], most_bytes: usize) -> HostResult<Vec<WireTensor>> {
    check_size(what, bytes_of(tensors), most_bytes)?;
    Ok(tensors.iter().map(to_wire).collect())
}

/// The one of that name; `exhausted` when it has more than this many bytes.
pub(crate) fn one_to_wire(tensors: &[Tensor], name: &str, most_bytes: usize) -> HostResult<Option<WireTensor>> {
    let Some(found) = tensors.iter().find(|tensor| tensor.name == name) else { return Ok(None) };
    check_size(&format!("the tensor `{name}`"), found.data.len(), most_bytes)?;
    Ok(Some(to_wire(found)))
}

/// One more tensor among those that are there; `invalid` when the name is taken, `exhausted` when they become too large.
pub(crate) fn add(what: &str, tensors: &mut Vec<Tensor>, tensor: WireTensor, most_bytes: usize) -> HostResult<()> {
    check_size(what, bytes_of(tensors) + tensor.data.len(), most_bytes)?;
    let tensor = from_wire(tensor)?;
    if tensors.iter().any(|earlier| earlier.name == tensor.name) {
        return Err(Error::invalid(format!("{what} have a tensor `{}` already; name each once", tensor.name)));
    }
    tensors.push(tensor);
    Ok(())
}

/// Bytes of the data of all of them.
pub(crate) fn bytes_of(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| tensor.data.len()).sum()
}

fn check_size(what: &str, bytes: usize, most: usize) -> HostResult<()> {
    match bytes <= most {
        true => Ok(()),
        false => Err(Error::exhausted(format!("{what} have {bytes} bytes; at most {most} cross to a plugin or back"))),
    }
}

/// One more parameter; `invalid` beyond this many or with a long name.
pub(crate) fn add_parameter(
    parameters: &mut Vec<(String, Parameter)>,
    parameter: WireParameter,
    most: usize,
) -> HostResult<()> {
    check_name(&parameter.name)?;
    if parameters.len() >= most {
        return Err(Error::invalid(format!("at most {most} parameters are taken")));
    }
    let value = match parameter.value {
        ParameterValue::Boolean(value) => Parameter::Bool(value),
        ParameterValue::Integer(value) => Parameter::Int64(value),
        ParameterValue::Unsigned(value) => Parameter::Uint64(value),
        ParameterValue::Real(value) => Parameter::Double(value),
        ParameterValue::Text(value) => Parameter::String(value),
    };
    parameters.push((parameter.name, value));
    Ok(())
}

/// All of them in the contract's form.
pub(crate) fn parameters_to_wire(parameters: &[(String, Parameter)]) -> Vec<WireParameter> {
    let wire = |(name, value): &(String, Parameter)| {
        let value = match value {
            Parameter::Bool(value) => ParameterValue::Boolean(*value),
            Parameter::Int64(value) => ParameterValue::Integer(*value),
            Parameter::Uint64(value) => ParameterValue::Unsigned(*value),
            Parameter::Double(value) => ParameterValue::Real(*value),
            Parameter::String(value) => ParameterValue::Text(value.clone()),
        };
        WireParameter { name: name.clone(), value }
    };
    parameters.iter().map(wire).collect()
}

/// What a model takes or gives, in the contract's form.
pub(crate) fn specs_to_wire(specs: &[TensorMetadata]) -> Vec<TensorSpec> {
    let wire = |spec: &TensorMetadata| TensorSpec {
        name: spec.name.clone(),
        datatype: spec.datatype.clone(),
        shape: spec.shape.clone(),
    };
    specs.iter().map(wire).collect()
}

pub(crate) fn check_name(name: &str) -> HostResult<()> {
    match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        0 => Err(Error::invalid("a tensor or parameter has an empty name; give it one")),
        bytes => Err(Error::invalid(format!("a name has {bytes} bytes; at most {NAME_BYTES_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_base::ErrorKind;

    fn wire(name: &str, datatype: &str, shape: &[u64], data: &[u8]) -> WireTensor {
        WireTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), data: data.to_vec() }
    }

    #[test]
    fn tensors_keep_their_bits_and_wrong_ones_are_refused() {
        let good = wire("x", "FP32", &[2, 1], &[0, 0, 128, 63, 0, 0, 0, 64]);
        let tensor = from_wire(good.clone()).unwrap();
        assert_eq!(tensor.singles().unwrap(), [1.0, 2.0]);
        let back = to_wire(&tensor);
        assert_eq!(
            (back.name, back.datatype, back.shape, back.data),
            ("x".into(), "FP32".into(), good.shape, good.data)
        );

        fn check(tensor: WireTensor, words: &str) {
            let error = from_wire(tensor).unwrap_err();
            assert!(error.kind() == ErrorKind::Invalid && error.message().contains(words), "{error}");
        }
        check(wire("x", "FP32", &[2], &[0; 4]), "`x`");
        check(wire("x", "FP99", &[2], &[0; 8]), "`FP99`");
        check(wire("x", "INT8", &[u64::MAX, 2], &[]), "too large");
        check(wire("x", "BYTES", &[1], &[9, 0, 0, 0, 1]), "`x`");
        check(wire("", "INT8", &[1], &[0]), "empty name");
        check(wire("x", "INT8", &[1; 33], &[0]), "33 dimensions");
        check(wire(&"x".repeat(1025), "INT8", &[1], &[0]), "1025 bytes");
        from_wire(wire(&"x".repeat(1024), "INT8", &[1; 32], &[0])).unwrap();
    }

    #[test]
    fn what_is_added_is_bounded_at_n_and_n_plus_one_and_named_once() {
        let mut tensors = Vec::new();
        add("the inputs", &mut tensors, wire("a", "INT8", &[3], &[0; 3]), 4).unwrap();
        add("the inputs", &mut tensors, wire("b", "INT8", &[1], &[0]), 4).unwrap();
        let error = add("the inputs", &mut tensors, wire("c", "INT8", &[1], &[0]), 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        let error = add("the inputs", &mut tensors, wire("a", "INT8", &[0], &[]), 4).unwrap_err();
        assert!(error.message().contains("`a` already"), "{error}");
        assert!(all_to_wire("the inputs", &tensors, 4).is_ok());
        assert_eq!(all_to_wire("the inputs", &tensors, 3).unwrap_err().kind(), ErrorKind::Exhausted);
        assert_eq!(one_to_wire(&tensors, "b", 1).unwrap().unwrap().data, [0]);
        assert_eq!(one_to_wire(&tensors, "a", 2).unwrap_err().kind(), ErrorKind::Exhausted);
        assert!(one_to_wire(&tensors, "z", 0).unwrap().is_none());
    }

    #[test]
    fn parameters_are_counted_and_come_back_as_they_went() {
        let given = [
            ParameterValue::Boolean(true),
            ParameterValue::Integer(-1),
            ParameterValue::Unsigned(u64::MAX),
            ParameterValue::Real(0.5),
            ParameterValue::Text("x".into()),
        ];
        let mut parameters = Vec::new();
        for (at, value) in given.iter().enumerate() {
            let parameter = WireParameter { name: format!("p{at}"), value: value.clone() };
            add_parameter(&mut parameters, parameter, 5).unwrap();
        }
        let one_more = WireParameter { name: "p".into(), value: ParameterValue::Boolean(true) };
        assert!(add_parameter(&mut parameters, one_more, 5).unwrap_err().message().contains("at most 5"));
        let back: Vec<ParameterValue> = parameters_to_wire(&parameters).into_iter().map(|each| each.value).collect();
        assert_eq!(format!("{back:?}"), format!("{given:?}"));
    }
}
