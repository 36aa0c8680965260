//! Where a rule finds what it needs in a request: pointers into the body, and places elsewhere.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::config::fields::{Fields, kind};
use crate::config::parse::check_header_name;
use crate::config::{Match, Path, Place};
use crate::json::{Object, PATHS_MAX, Pointer, Value};

/// Places and pointers in one list: a walk may have to follow five lists of a rule, `order` twice (what it says, and that
/// it is not compared).
const LIST_MAX: usize = PATHS_MAX / 6;

pub(super) fn fits(fields: &mut Fields<'_>) -> Option<Match> {
    if !fields.has("match") {
        return None;
    }
    let mut fits = fields.object("match");
    let pointer = fits.needed("pointer");
    let values = fits.texts("values").unwrap_or_default();
    if values.is_empty() {
        fits.report("values", "needs at least one value");
    }
    let pointer = pointer.and_then(|text| match Pointer::parse(&text) {
        Ok(pointer) => Some(pointer),
        Err(message) => {
            fits.report("pointer", message);
            None
        }
    });
    fits.end();
    pointer.map(|pointer| Match { pointer, values })
}

const PLACE_FORM: &str = "expected a JSON pointer as in \"/session_id\", \"{session}\" for the path's \
                          segment, {\"query\": \"name\"}, {\"header\": \"name\"} or {\"constant\": \"text\"}";

/// A session has one at least; a tenant need have none.
pub(super) fn places(
    fields: &mut Fields<'_>,
    name: &'static str,
    path: Option<&Path>,
) -> Vec<Place> {
    let items = fields.array(name).unwrap_or_default();
    if items.is_empty() && name == "session" {
        fields.report(name, "needs at least one place, as in [\"/session_id\"]");
    }
    check_length(fields, name, items.len());
    let mut places = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match place(item, path) {
            Ok(place) => places.push(place),
            Err(message) => fields.report(&format!("{name}/{index}"), message),
        }
    }
    places
}

fn place(item: Value, path: Option<&Path>) -> Result<Place, String> {
    let object = match item {
        Value::Text(text) if text == "{session}" => {
            return match path.filter(|path| !path.has_session()) {
                None => Ok(Place::Segment),
                Some(path) => Err(format!("\"{path}\" has no segment \"{{session}}\"")),
            };
        }
        Value::Text(text) => {
            return Pointer::parse(&text)
                .map(Place::Body)
                .map_err(ToString::to_string);
        }
        Value::Object(object) if object.keys().count() == 1 => object,
        other => return Err(format!("{PLACE_FORM}, found {}", kind(&other))),
    };
    place_of(object).ok_or_else(|| PLACE_FORM.to_owned())?
}

/// `None` for what is no place at all.
fn place_of(object: Object) -> Option<Result<Place, String>> {
    let (key, value) = object.into_members().into_iter().next()?;
    let Value::Text(text) = value else {
        return None;
    };
    if text.is_empty() {
        return Some(Err(format!("\"{key}\" must not be empty")));
    }
    Some(match key.as_str() {
        "query" => Ok(Place::Query(text)),
        "header" => check_header_name(&text).map(|()| Place::Header(text)),
        "constant" => Ok(Place::Constant(text)),
        _ => return None,
    })
}

pub(super) fn pointers(fields: &mut Fields<'_>, name: &'static str, needed: bool) -> Vec<Pointer> {
    let texts = fields.texts(name).unwrap_or_default();
    if needed && texts.is_empty() {
        fields.report(
            name,
            "needs at least one JSON pointer, as in [\"/session_id\"]",
        );
    }
    check_length(fields, name, texts.len());
    let mut pointers = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match Pointer::parse(text) {
            Ok(pointer) => pointers.push(pointer),
            Err(message) => fields.report(&format!("{name}/{index}"), message),
        }
    }
    pointers
}

fn check_length(fields: &mut Fields<'_>, name: &'static str, length: usize) {
    if length > LIST_MAX {
        fields.report(name, format!("at most {LIST_MAX}, found {length}"));
    }
}
