//! Evidence as the state file has it: JSON tells a number from a text by its looks, bytes need a tag.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::finding::{Evidence, EvidenceValue};

#[derive(Serialize, Deserialize)]
enum Tagged {
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<String>),
}

pub(super) fn serialize<S: Serializer>(evidence: &[Evidence], to: S) -> Result<S::Ok, S::Error> {
    let tagged = |value: &EvidenceValue| match value {
        EvidenceValue::Integer(value) => Tagged::Integer(*value),
        EvidenceValue::Number(value) => Tagged::Number(*value),
        EvidenceValue::Text(value) => Tagged::Text(value.clone()),
        EvidenceValue::List(value) => Tagged::List(value.clone()),
    };
    let all: Vec<_> = evidence.iter().map(|fact| (&fact.fact, tagged(&fact.value), &fact.unit)).collect();
    all.serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Evidence>, D::Error> {
    let value = |tagged| match tagged {
        Tagged::Integer(value) => EvidenceValue::Integer(value),
        Tagged::Number(value) => EvidenceValue::Number(value),
        Tagged::Text(value) => EvidenceValue::Text(value),
        Tagged::List(value) => EvidenceValue::List(value),
    };
    let all = Vec::<(String, Tagged, String)>::deserialize(from)?;
    Ok(all.into_iter().map(|(fact, tagged, unit)| Evidence { fact, value: value(tagged), unit }).collect())
}
