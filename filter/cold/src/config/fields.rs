//! Takes a JSON object apart field by field, and remembers everything that was wrong with it.
//!
//! serde's derive stops at the first problem and cannot say where it is; an operator who has three
//! mistakes in a file wants to hear of three.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::Problem;
use crate::json::{Object, Value};

/// One object, being taken apart. Whatever nobody asked for is a problem when [`Fields::end`] is
/// called.
pub(super) struct Fields<'p> {
    pub(super) pointer: String,
    map: Object,
    asked: Vec<&'static str>,
    /// It was no object at all: that is the problem, and not the fields that it lacks.
    broken: bool,
    problems: &'p mut Vec<Problem>,
}

/// A value's place and what is wrong with it.
pub(super) fn problem(pointer: &str, message: impl Into<String>) -> Problem {
    Problem {
        pointer: pointer.to_owned(),
        message: message.into(),
    }
}

/// `value` in a person's words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::Text(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// How many single-letter edits lie between two names; capped, since only near misses matter.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left_above = i;
        let mut left = i.saturating_add(1);
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (y, above) in b.chars().zip(row.iter().skip(1)) {
            let replace = left_above.saturating_add(usize::from(x != y));
            left = replace
                .min(above.saturating_add(1))
                .min(left.saturating_add(1));
            left_above = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

// === impl Fields ===

impl<'p> Fields<'p> {
    /// Starts on `value`, which should be an object; anything else is one problem and counts as `{}`.
    pub(super) fn of(pointer: String, value: Value, problems: &'p mut Vec<Problem>) -> Self {
        let (map, broken) = match value {
            Value::Object(map) => (map, false),
            other => {
                problems.push(problem(
                    &pointer,
                    format!("expected an object, found {}", kind(&other)),
                ));
                (Object::default(), true)
            }
        };
        Self {
            pointer,
            map,
            asked: Vec::new(),
            broken,
            problems,
        }
    }

    /// The pointer of a field, or of something within it (`headers/0`).
    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.pointer)
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.map.remove(name)
    }

    /// Reports a problem at one of this object's fields.
    pub(super) fn report(&mut self, name: &str, message: impl Into<String>) {
        let place = self.place(name);
        self.problems.push(problem(&place, message));
    }

    fn mismatch(&mut self, name: &str, expected: &str, found: &Value) {
        self.report(name, format!("expected {expected}, found {}", kind(found)));
    }

    /// Whether the field is there, without taking it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some()
    }

    /// The field, without taking it.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name)
    }

    /// A key that is known no more, and what it is now.
    pub(super) fn gone(&mut self, name: &'static str, instead: &str) {
        if self.map.remove(name).is_some() {
            self.report(name, instead);
        }
    }

    /// Whether this was no object at all, which has been reported.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// A boolean.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        match self.take(name) {
            None => default,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.mismatch(name, "true or false", &other);
                default
            }
        }
    }

    /// A whole number within `range`.
    #[inline(always)]
    pub(super) fn whole(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.within(name, default, *range.start(), *range.end())
    }

    /// The same: a range is three numbers in memory, and there are thirty of them.
    #[inline(never)]
    fn within(&mut self, name: &'static str, default: u64, least: u64, most: u64) -> u64 {
        let Some(value) = self.take(name) else {
            return default;
        };
        let number = match &value {
            Value::Number(digits) => digits.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if (least..=most).contains(&number) => number,
            _ => {
                let found = match &value {
                    Value::Number(digits) => digits.clone(),
                    other => kind(other).to_owned(),
                };
                let expected =
                    format!("expected a whole number from {least} to {most}, found {found}");
                self.report(name, expected);
                default
            }
        }
    }

    /// A string, not empty.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::Text(text) if !text.is_empty() => Some(text),
            Value::Text(_) => {
                self.report(name, "must not be empty");
                None
            }
            other => {
                self.mismatch(name, "a string", &other);
                None
            }
        }
    }

    /// A string that must be there.
    pub(super) fn needed(&mut self, name: &'static str) -> Option<String> {
        if !self.has(name) && !self.broken {
            self.asked.push(name);
            self.report(name, "is needed");
        }
        self.text(name)
    }

    /// An array of strings.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let items = self.array(name)?;
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::Text(text) => texts.push(text),
                other => {
                    let place = format!("{}/{index}", self.place(name));
                    let message = format!("expected a string, found {}", kind(&other));
                    self.problems.push(problem(&place, message));
                }
            }
        }
        Some(texts)
    }

    /// An array of anything.
    pub(super) fn array(&mut self, name: &'static str) -> Option<Vec<Value>> {
        match self.take(name)? {
            Value::Array(items) => Some(items),
            other => {
                self.mismatch(name, "an array", &other);
                None
            }
        }
    }

    /// An object within this one; an absent one counts as `{}`.
    pub(super) fn object(&mut self, name: &'static str) -> Fields<'_> {
        let value = self
            .take(name)
            .unwrap_or_else(|| Value::Object(Object::default()));
        Fields::of(self.place(name), value, self.problems)
    }

    /// An object of strings, in the order of its keys.
    pub(super) fn pairs(&mut self, name: &'static str) -> Vec<(String, String)> {
        let mut fields = self.object(name);
        let members = core::mem::take(&mut fields.map).into_members();
        let mut pairs = Vec::with_capacity(members.len());
        for (key, value) in members {
            match value {
                Value::Text(text) => pairs.push((key, text)),
                other => fields.mismatch(&key, "a string", &other),
            }
        }
        pairs
    }

    /// Everything has been asked for: what is left is unknown.
    pub(super) fn end(self) {
        for unknown in self.map.keys() {
            let near = self
                .asked
                .iter()
                .map(|name| (distance(unknown, name), *name))
                .min()
                .filter(|(edits, _)| *edits <= 3);
            let message = match near {
                Some((_, name)) => format!("unknown key; did you mean \"{name}\"?"),
                None => format!("unknown key; known are {}", self.asked.join(", ")),
            };
            let escaped = unknown.replace('~', "~0").replace('/', "~1");
            self.problems.push(problem(&self.place(&escaped), message));
        }
    }
}
