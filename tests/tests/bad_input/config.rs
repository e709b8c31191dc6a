//! A configuration with mistakes, and JSON that is too deep or too much.

use std::fs;

use hearth_tests::hostile::{Home, Launch, peer::noise};
use serde_json::json;

const USAGE: i32 = 2;
const REFUSED: i32 = 6;

#[test]
fn a_mistake_in_the_configuration_is_named_with_file_line_and_key() {
    let home = Home::new();
    let folder = &home.folder;
    let cases: [(&[u8], &str, &str); 7] = [
        (b"# mine\nname = 7\n", ":2:8: `name` is 7", "\"kitchen\""),
        (b"\n\nlistne = \"x\"\n", ":3:1: unknown key `listne`", "did you mean `listen`?"),
        (b"peers = [\"a\", \"b:99999\"]\n", ":1:", "`peers"),
        (b"[api]\nunix_group = \n", ":2:", "not TOML"),
        (b"name = \"a\"\nname = \"b\"\n", ":2:", "not TOML"),
        (b"name = \"\xff\"\n", ":1:", "not UTF-8"),
        (b"name = \"a\"\n\xff\n", ":2:1:", "not UTF-8"),
    ];
    for (text, place, words) in cases {
        let state = folder.join("c");
        fs::create_dir_all(&state).expect("a folder");
        let file = state.join("hearth.toml");
        fs::write(&file, text).expect("a file");
        let refused = Launch::new().fails(&state);
        refused.expect(USAGE, &[&format!("{}{place}", file.display()), words]);
        // Nothing was founded with half a configuration.
        assert!(!state.join("node.key").exists());
    }
    let state = folder.join("c");
    fs::write(state.join("hearth.toml"), vec![b'#'; 2 << 20]).expect("a file");
    Launch::new().fails(&state).expect(USAGE, &["the limit is 1048576"]);
    for noise in (0..20).map(|_| noise(100_000)) {
        fs::write(state.join("hearth.toml"), &noise).expect("a file");
        // Of a hundred one has the end of a line before the first byte that is not text.
        let text = str::from_utf8(&noise).expect_err("noise is no text").valid_up_to();
        let line = 1 + noise.iter().take(text).filter(|byte| **byte == b'\n').count();
        Launch::new().fails(&state).expect(USAGE, &[&format!("hearth.toml:{line}:"), "not UTF-8"]);
    }
    fs::remove_file(state.join("hearth.toml")).expect("it goes");
    let refused = Launch::new().variable("HEARTH_NAME", "a\tb").fails(&state);
    refused.expect(USAGE, &["HEARTH_NAME", "1 to 64 bytes", "unset HEARTH_NAME"]);
    home.is_served();
    home.memory_is_bounded();
}

fn nested(depth: usize) -> String {
    format!("{{\"text\":{}1{}}}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn deep_and_huge_json_is_refused_over_http() {
    let home = Home::new();
    let path = "/api/v1/objects/note/x";
    for depth in [17, 1_000, 500_000] {
        let body = format!("{{\"set\":{}}}", nested(depth));
        let (status, text) = home.a.http_raw("PATCH", path, body.as_bytes());
        assert!(status == 400 && text.contains("urn:hearth:problem:too-deep"), "{status} {text}");
    }
    // Opened and never closed.
    let (status, text) = home.a.http_raw("PATCH", path, "[{".repeat(400_000).as_bytes());
    assert!(status == 400 && text.contains("urn:hearth:problem:too-deep"), "{status} {text}");
    let huge = format!("{{\"set\":{{\"text\":\"{}\"}}}}", "x".repeat(16 << 20));
    for _ in 0..4 {
        let (status, text) = home.a.http_raw("PATCH", path, huge.as_bytes());
        assert!(status == 413 && text.contains("urn:hearth:problem:too-large"), "{status} {text}");
    }
    for body in [&noise(10_000)[..], b"", b"{", b"{\"set\":", b"\"", b"nul", b"{\"set\":{\"a\":1}}x"] {
        let (status, text) = home.a.http_raw("PATCH", path, body);
        assert!((400..500).contains(&status) && text.contains("urn:hearth:problem:"), "{status} {text}");
    }
    let metrics = home.a.http_raw("GET", "/metrics", b"").1;
    assert!(metrics.contains("\nhearth_http_panics_total 0\n"), "{metrics}");
    assert_eq!(home.a.requests("/api/v1/objects", "4xx"), 3 + 1 + 4 + 7, "{metrics}");
    assert_eq!(home.a.field("note/x", "text"), None);
    home.is_served();
    home.memory_is_bounded();
}

#[test]
fn deep_and_huge_json_is_refused_by_the_commands() {
    let home = Home::new();
    let refused = home.a.cli_with(&["put", "note/x", "-"], nested(40).as_bytes());
    refused.expect(REFUSED, &["deeper than 16 levels"]);
    let refused = home.a.cli_with(&["put", "note/x", "-"], nested(100_000).as_bytes());
    assert_ne!(refused.code, 0);
    refused.expect(refused.code, &["error:"]);
    let refused = home.a.cli_with(&["put", "note/x", "-"], nested(10).as_bytes());
    refused.expect(REFUSED, &["`note/x.text`", "8 levels"]);
    let refused = home.a.cli_with(&["put", "note/x", "-"], &vec![b' '; 4 << 20]);
    refused.expect(USAGE, &["more than 1 MiB"]);
    let refused = home.a.cli(&["put", "note/x", "text:=[1,"]);
    refused.expect(USAGE, &["text"]);
    // An import says which line it refuses, and takes the others.
    let good = json!({"id": "note/good", "fields": {"text": "fine"}});
    let lines = format!("{good}\n{{\"id\":\"note/x\",\"fields\":{}}}\n", nested(40));
    let import = home.a.cli_with(&["import", "-"], lines.as_bytes());
    assert_ne!(import.code, 0, "{}", import.text());
    assert!(import.text().contains("\"line\":2"), "{}", import.text());
    assert!(home.a.requests("/api/v1/", "4xx") >= 1, "what the node refused is counted");
    assert_eq!(home.a.field("note/x", "text"), None);
    home.is_served();
    home.memory_is_bounded();
}
