//! The transitions that the simulation counts are those that the sources announce.

use std::collections::BTreeSet;
use std::fs;

use embudo::live::paths;

/// Headings of the record's state machines, as the coverage knows them. A heading that is not here is a
/// transition that nobody counts: add it to `harness/src/sim/check/coverage.rs` first.
const KNOWN: [&str; 39] = [
    "Leader => (Leader | Follower)",
    "Follower => (Follower | Leader)",
    "New => Bypassed | Gathering | Barred",
    "Gathering => Gathering | PassingBatch | Answered",
    "PassingBatch => JudgingBatch | Answered",
    "JudgingBatch => Answered",
    "New => Bypassed | Barred",
    "Barred => Answered",
    "Barred => at Laravel",
    "New | Collecting => Bypassed",
    "Collecting => Bypassed | WritingThrough | Waiting | Answered",
    "Collecting => Bypassed | WritingThrough | Held",
    "Collecting => WritingThrough | Held",
    "New => Answered | Asking",
    "Asking => Answered | Relaying",
    "Relaying => Answered",
    "WritingThrough => Judging | Answered",
    "Held => Judging | Answered",
    "Judging => Answered",
    "Waiting => Answered",
    "Held => at Laravel",
    "Dirty => Dirty under a claim",
    "Dirty under a claim => (Clean | Dirty | absent)",
    "Dirty => absent, and what it implied => Dirty",
    "superseded: Dirty => absent",
    "overtaken: Dirty => absent | Clean => Clean, unverified",
    "Implied => Dirty",
    "kept => absent",
    "absent | Clean | Dirty | Implied => Dirty",
    "voided routes: Dirty | Clean => absent",
    "the implied route: absent | Clean | Dirty | Implied => Implied",
    "held => at Laravel",
    "held => Dirty",
    "held => (gone)",
    "Clean | absent => Clean",
    "Clean | absent | Dirty => Dirty",
    "(new) | held => at Laravel",
    "(new) | held => at Laravel, outside the order",
    "(new) => held",
];

#[test]
fn every_announced_transition_is_counted() {
    let root = paths::root();
    let mut files = vec![
        root.join("filter/core/src/lease.rs"),
        root.join("filter/src/stream.rs"),
        root.join("filter/src/stream/barrier.rs"),
        root.join("filter/src/stream/batch.rs"),
        root.join("filter/src/root.rs"),
    ];
    let shard = fs::read_dir(root.join("filter/core/src/shard")).expect("the folder is there");
    let shard = shard.map(|entry| entry.expect("readable").path());
    files.extend(shard.filter(|path| path.is_file()));
    let mut found = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let headings = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("// ## "));
        found.extend(
            headings
                .filter(|text| text.contains("=>"))
                .map(str::to_owned),
        );
    }
    let known: BTreeSet<String> = KNOWN.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(found, known);
}
