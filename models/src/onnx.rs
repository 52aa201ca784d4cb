//! Writes a multi-layer perceptron as an ONNX file, and finds the weights in one.
//!
//! Goes in: layer weights. Comes out: the bytes of a model with a symbolic batch,
//! `Gemm -> Relu -> ... -> Gemm -> Softmax`. The messages below are the part of `onnx.proto3`
//! that such a graph needs, with its field numbers; a reader skips what they leave out.

use prost::Message;

/// Gemm, Relu and Softmax have meant the same since operator set 13.
const OPERATOR_SET: i64 = 13;
/// The file format that goes with it.
const IR_VERSION: i64 = 7;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;
/// `AttributeProto.AttributeType.INT`.
const ATTRIBUTE_INT: i32 = 2;

/// A fully connected layer: `y = x W^T + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    pub inputs: usize,
    /// Shape `[outputs, inputs]`, row by row.
    pub weights: Vec<f32>,
    /// Shape `[outputs]`.
    pub bias: Vec<f32>,
}

/// The bytes of a classifier: `layers` joined by Relu, Softmax at the end.
///
/// `input` and `output` name the tensors, of shape `[batch, n]`.
#[must_use]
pub fn classifier(name: &str, input: &str, output: &str, layers: &[Dense]) -> Vec<u8> {
    let mut graph = GraphProto {
        name: name.to_owned(),
        ..GraphProto::default()
    };
    let mut at = input.to_owned();
    for (index, layer) in layers.iter().enumerate() {
        let (weights, bias) = (format!("w{index}"), format!("b{index}"));
        let outputs = layer.bias.len();
        graph
            .initializer
            .push(tensor(&weights, &[outputs, layer.inputs], &layer.weights));
        graph
            .initializer
            .push(tensor(&bias, &[outputs], &layer.bias));
        let sum = format!("sum{index}");
        graph.node.push(node(
            "Gemm",
            &[&at, &weights, &bias],
            &sum,
            Some(("transB", 1)),
        ));
        let last = index + 1 == layers.len();
        at = if last {
            output.to_owned()
        } else {
            format!("relu{index}")
        };
        match last {
            true => graph
                .node
                .push(node("Softmax", &[&sum], &at, Some(("axis", 1)))),
            false => graph.node.push(node("Relu", &[&sum], &at, None)),
        }
    }
    graph
        .input
        .extend(layers.first().map(|layer| value(input, layer.inputs)));
    graph
        .output
        .extend(layers.last().map(|layer| value(output, layer.bias.len())));
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "homeostat".to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            version: OPERATOR_SET,
        }],
    }
    .encode_to_vec()
}

/// Where the first weight matrix lies in an ONNX file: the bytes of its raw little-endian
/// `f32`s. `None` if the file does not parse or holds no such matrix.
#[must_use]
pub fn first_weights(file: &[u8]) -> Option<std::ops::Range<usize>> {
    let graph = ModelProto::decode(file).ok()?.graph?;
    let matrix = graph
        .initializer
        .iter()
        .find(|tensor| tensor.dims.len() == 2 && tensor.data_type == FLOAT)?;
    let raw = matrix.raw_data.as_slice();
    if raw.is_empty() {
        return None;
    }
    let start = file.windows(raw.len()).position(|window| window == raw)?;
    Some(start..start + raw.len())
}

/// A tensor that goes into a model or comes out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    /// Each dimension; `None` for one that the caller chooses.
    pub shape: Vec<Option<usize>>,
}

/// The first input and the first output of an ONNX file. `None` if the file does not parse or
/// lacks one.
#[must_use]
pub fn ports(file: &[u8]) -> Option<(Tensor, Tensor)> {
    let graph = ModelProto::decode(file).ok()?.graph?;
    let port = |value: &ValueInfoProto| {
        let shape = value
            .r#type
            .as_ref()?
            .tensor_type
            .as_ref()?
            .shape
            .as_ref()?;
        let fixed = |dim: &Dimension| match dim.value {
            Some(dimension::Value::DimValue(size)) => usize::try_from(size).ok(),
            Some(dimension::Value::DimParam(_)) | None => None,
        };
        Some(Tensor {
            name: value.name.clone(),
            shape: shape.dim.iter().map(fixed).collect(),
        })
    };
    Some((port(graph.input.first()?)?, port(graph.output.first()?)?))
}

fn tensor(name: &str, shape: &[usize], numbers: &[f32]) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|size| dimension(*size)).collect(),
        data_type: FLOAT,
        name: name.to_owned(),
        raw_data: numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect(),
    }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Option<(&str, i64)>) -> NodeProto {
    let attribute = attribute.map(|(name, i)| AttributeProto {
        name: name.to_owned(),
        i,
        r#type: ATTRIBUTE_INT,
    });
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        op_type: op.to_owned(),
        attribute: attribute.into_iter().collect(),
    }
}

fn value(name: &str, size: usize) -> ValueInfoProto {
    let dim = vec![
        Dimension {
            value: Some(dimension::Value::DimParam("batch".to_owned())),
        },
        Dimension {
            value: Some(dimension::Value::DimValue(dimension(size))),
        },
    ];
    let tensor_type = TensorTypeProto {
        elem_type: FLOAT,
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor_type),
        }),
    }
}

fn dimension(size: usize) -> i64 {
    i64::try_from(size).expect("a vector in memory is shorter than i64::MAX")
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(oneof = "dimension::Value", tags = "1, 2")]
    value: Option<dimension::Value>,
}

mod dimension {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(int64, tag = "1")]
        DimValue(i64),
        #[prost(string, tag = "2")]
        DimParam(String),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_weights_are_found_where_they_lie() {
        let weights = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let layers = [Dense {
            inputs: 3,
            weights: weights.clone(),
            bias: vec![0.0, 0.0],
        }];
        let file = classifier("tiny", "x", "y", &layers);
        let range = first_weights(&file).unwrap();
        let raw: Vec<u8> = weights
            .iter()
            .flat_map(|number: &f32| number.to_le_bytes())
            .collect();
        assert_eq!(file[range], raw);
    }

    #[test]
    fn foreign_bytes_hold_no_weights() {
        assert_eq!(first_weights(b""), None);
        assert_eq!(first_weights(b"not a protobuf at all"), None);
    }
}
