//! "Laravel can read it" is held against PHP's own `json_decode`, into objects and into arrays: one item that PHP
//! refuses would blind it to the whole batch. Skipped where there is no PHP.

#![expect(
    clippy::disallowed_methods,
    reason = "somebody has to write what PHP reads"
)]

use std::io::Write;
use std::process::{Command, Stdio};

use embudo_core::hash::HashKey;
use embudo_core::json;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Keys and strings as they are written, with what may be wrong with one.
const TEXTS: [&str; 14] = [
    r#""""#,
    r#""a""#,
    r#""b""#,
    r#""\u0061""#,
    r#""_method""#,
    r#""\u0000k""#,
    r#""\u0000""#,
    r#""k\u0000""#,
    r#""\ud83d\ude00""#,
    r#""\ud83d""#,
    r#""\ude00""#,
    "\"\u{e9}\"",
    "\"\t\"",
    r#""\x""#,
];

const OTHERS: [&str; 12] = [
    "null",
    "true",
    "0",
    "-1.5e3",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-",
    "01",
    "nul",
    "[]",
    "{}",
];

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(&TEXTS[..]).prop_map(str::to_owned),
        select(&OTHERS[..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(40, 60, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(","))),
            object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (select(&TEXTS[..]), value).prop_map(|(key, value)| format!("{key}:{value}"));
    vec(member, 0..4).prop_map(|all| format!("{{{}}}", all.join(",")))
}

/// For each line of hexadecimal digits whether it is read as an object, and as an array.
const SCRIPT: &str = r#"
    while (($line = fgets(STDIN)) !== false) {
        $body = hex2bin(trim($line));
        echo is_object(json_decode($body)) ? "1" : "0";
        echo is_array(json_decode($body, true)) ? "1\n" : "0\n";
    }
"#;

#[test]
fn whatever_is_queued_php_reads_as_an_object_and_as_an_array() {
    let php = Command::new("php")
        .args(["-r", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut php) = php else {
        eprintln!("skipped: there is no PHP");
        return;
    };
    let mut runner = TestRunner::deterministic();
    let mut bodies: Vec<String> = Vec::new();
    for _ in 0..4_000 {
        bodies.push(object(value()).new_tree(&mut runner).unwrap().current());
    }
    for depth in 30..35 {
        bodies.push(format!(
            "{{\"a\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        ));
    }
    let lines: String = bodies
        .iter()
        .map(|body| {
            body.bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                + "\n"
        })
        .collect();
    let mut stdin = php.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = php.wait_with_output().unwrap();
    writer.join().expect("it ends").unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let key = HashKey::from_bytes([1; 16]);
    let (mut queued, mut refused, mut odd) = (0, 0, 0);
    assert_eq!(answers.lines().count(), bodies.len());
    for (body, php) in bodies.iter().zip(answers.lines()) {
        match json::read(body.as_bytes(), &[], &[], key) {
            Ok(_) => {
                queued += 1;
                assert_eq!(php, "11", "PHP does not read {body}");
            }
            Err(json::Unreadable::OddKey) => odd += usize::from(php == "01"),
            Err(_) => refused += 1,
        }
    }
    assert!(
        queued > 500 && refused > 500,
        "{queued} queued, {refused} refused"
    );
    assert!(odd > 50, "{odd} bodies that PHP reads as an array only");
}
