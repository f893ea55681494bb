//! Every check finds what it is there for, and leaves alone what only looks like it.

use super::*;

fn found(path: &str, text: &str) -> Vec<String> {
    let members = ["delivery".to_owned(), "tests".to_owned()];
    let texts = [(path, text.to_owned())];
    let mut findings = Vec::new();
    for source in source::all(&texts, &members) {
        check_source(&source, &mut findings);
    }
    findings.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_finds(text: &str, line: usize, part: &str) {
    let findings = found("delivery/src/x.rs", text);
    let place = format!("delivery/src/x.rs:{line}: ");
    assert!(findings.len() == 1 && findings[0].starts_with(&place) && findings[0].contains(part), "{findings:?}");
}

#[test]
fn long_files_count_without_their_tests() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // a line\n".repeat(400));
    let fits = format!("//! Header.\n{}{tests}", "// a line\n".repeat(sizes::FILE_LINES_MAX - 1));
    assert_eq!(found("delivery/src/x.rs", &fits), Vec::<String>::new());
    let long = format!("//! Header.\n{}{tests}", "// a line\n".repeat(sizes::FILE_LINES_MAX));
    assert_finds(&long, 1, "501 lines");
}

#[test]
fn long_functions_count_without_blank_and_comment_lines() {
    let body = |lines: usize| {
        format!("//! Header.\nfn f<'a>(x: &'a str) {{\n{}}}\n", "    g('{', \"}\");\n\n// {\n".repeat(lines))
    };
    assert_eq!(found("delivery/src/x.rs", &body(sizes::FUNCTION_LINES_MAX - 2)), Vec::<String>::new());
    assert_finds(&body(sizes::FUNCTION_LINES_MAX - 1), 2, "function `f` has 71 lines");
}

#[test]
fn detached_tasks_are_found_in_code_and_not_in_words() {
    assert_finds("//! H.\nfn f() { tokio::spawn(g()); }\n", 2, "detached");
    let words =
        "//! tokio::spawn(\nconst A: &str = \"tokio::spawn(\"; // todo!()\nconst B: &str = r#\" \" todo!() \"#;\n";
    assert_eq!(found("delivery/src/x.rs", words), Vec::<String>::new());
    assert_eq!(found("delivery/src/supervisor.rs", "//! H.\nfn f() { tokio::spawn(g()); }\n"), Vec::<String>::new());
}

#[test]
fn detached_threads_are_found_in_what_ships() {
    let text = "//! H.\nfn f() { std::thread::spawn(g); }\n";
    assert_finds(text, 2, "detached thread");
    assert_eq!(found("operator/src/x.rs", text).len(), 1);
    assert_eq!(found("tests/src/x.rs", text), Vec::<String>::new());
    assert_eq!(found("agent/src/x.rs", &text.replace("spawn(g)", "scope(g)")), Vec::<String>::new());
}

#[test]
fn queues_without_a_bound_are_found() {
    assert_finds("//! H.\nfn f() { mpsc::unbounded_channel(); }\n", 2, "unbounded queue");
    assert_finds("//! H.\nstruct S(\n    UnboundedSender<u8>);\n", 3, "unbounded queue");
}

#[test]
fn packages_beyond_the_budget_are_found() {
    let lock = |packages: usize| "[[package]]\nname = \"a\"\n".repeat(packages);
    assert!(shape::over_budget(&lock(shape::LOCK_PACKAGES_MAX)).is_none());
    let told = shape::over_budget(&lock(shape::LOCK_PACKAGES_MAX + 1)).unwrap().to_string();
    assert!(
        told.contains("Cargo.lock") && told.contains(&format!("{} packages", shape::LOCK_PACKAGES_MAX + 1)),
        "{told}"
    );
}

#[test]
fn sleeps_are_found_in_tests_alone() {
    assert_eq!(found("tests/src/x.rs", "//! H.\nfn f() { sleep(x); }\n"), Vec::<String>::new());
    assert_eq!(found("tests/tests/x.rs", "fn f() { sleep(x); }\n").len(), 1);
    assert_finds("//! H.\n#[cfg(test)]\nmod tests {\n    fn f() { sleep(x); }\n}\n", 4, "sleeps");
}

#[test]
fn a_test_program_with_a_paused_clock_may_sleep() {
    let texts = [
        ("delivery/tests/model.rs", "#[tokio::test(start_paused = true)]\nfn f() { sleep(x); }\n".to_owned()),
        ("delivery/tests/model/world.rs", "fn f() { sleep(x); }\n".to_owned()),
        ("delivery/tests/other.rs", "fn f() { sleep(x); }\n".to_owned()),
    ];
    let mut findings = Vec::new();
    for source in source::all(&texts, &["delivery".to_owned()]) {
        check_source(&source, &mut findings);
    }
    assert!(findings.len() == 1 && findings[0].path == "delivery/tests/other.rs", "{findings:?}");
}

#[test]
fn a_module_declared_for_tests_is_test_code() {
    let texts = [
        ("delivery/src/log.rs", "//! H.\n#[cfg(test)]\nmod model;\n".to_owned()),
        ("delivery/src/log/model.rs", "//! H.\n".to_owned()),
        ("delivery/src/log/model/world.rs", "//! H.\n".to_owned()),
        ("delivery/src/log/segment.rs", "//! H.\n".to_owned()),
    ];
    let are_tests: Vec<_> = source::all(&texts, &["delivery".to_owned()]).iter().map(|source| source.is_test).collect();
    assert_eq!(are_tests, [false, true, true, false]);
}

#[test]
fn error_texts_are_fragments_that_do_not_repeat_their_source() {
    assert_finds("//! H.\n#[error(\"Could not do\")]\n", 2, "lower case");
    assert_finds("//! H.\n#[error(\"not done.\")]\n", 2, "full stop");
    assert_finds("//! H.\n#[error(\"not done: {source}\")]\n", 2, "repeat");
    assert_finds("//! H.\nenum E {\n  #[error(\"not done: {0}\")]\n  A(#[from] std::io::Error),\n}\n", 3, "repeat");
    let good = "//! H.\nenum E {\n  #[error(\"TLS of {name} is not {0}\")]\n  A(String),\n  #[error(\"no\")]\n  B(#[from] X),\n}\n";
    assert_eq!(found("delivery/src/x.rs", good), Vec::<String>::new());
}

#[test]
fn headers_allows_names_and_crowded_enums_are_found() {
    assert_finds("fn f() {}\n", 1, "no header");
    assert_finds("//! H.\n#[allow(dead_code)]\n", 2, "#[allow");
    assert_finds("//! H.\n#[cfg(test)]\nmod tests {\n    fn test_it() {}\n}\n", 4, "test_");
    let crowded = format!("//! H.\nenum E {{\n{}}}\n", "  #[error(\"x\")]\n  A,\n".repeat(9));
    assert_finds(&crowded, 2, "9 errors");
}

#[test]
fn manifests_inherit_the_lints() {
    assert!(shape::inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
    assert!(!shape::inherits_lints("[package]\n\n[lints]\nrust.unsafe_code = \"allow\"\n"));
    assert!(!shape::inherits_lints("[package]\nworkspace = true\n"));
}

#[test]
fn links_need_their_file_and_their_heading() {
    let texts = [
        ("README.md", "# Spillway\n\n## Run it by hand\n".to_owned()),
        ("docs/a.md", "[1](../README.md#run-it-by-hand) [2](../docs) [3](b.md)\n[4](../README.md#no) [5](https://example.test/x) `[7](d.md)` [`8`](../README.md)\n```\n[6](c.md)\n```\n".to_owned()),
    ];
    let mut findings = Vec::new();
    text::check_links("docs/a.md", &texts[1].1, &texts, &mut findings);
    let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["docs/a.md:1: link to `b.md`: no such file", "docs/a.md:2: link to `../README.md#no`: no such heading"]
    );
}

#[test]
fn hosts_and_machine_folders_are_found() {
    let mut findings = Vec::new();
    let text =
        format!("a relative path such as team{0}x is fine\nbut not {0}x\nnor {1}\n", "/work\u{2f}", "pypi\u{2e}org");
    text::check_words("docs/a.md", &text, &mut findings);
    assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn what_documents_must_name_is_read_from_the_code() {
    let cli = "#[arg(long, env = \"SPILLWAY_HTTP\")]\n#[arg(env = \"SPILLWAY_ADMIN\", long)]";
    assert_eq!(documents::variables(cli).collect::<Vec<_>>(), ["SPILLWAY_HTTP", "SPILLWAY_ADMIN"]);
    let source = "f.counter(\"log_syncs\", \"Syncs of the log.\", x)?;\nf.gauge(\n  \"ready\",\n  \"Whether it is.\",\n)?;\nwith(\"code\", \"state\");\nProblem::new(503, \"busy\", \"too many\")";
    assert_eq!(documents::metrics(source), ["log_syncs", "ready"]);
    let registering = "use prometheus_client::registry::Registry;\nregistry.register(\"webhook_reviews\", \"Reviews, by verdict.\", reviews);";
    assert_eq!(documents::prefix("operator/src/webhook.rs", registering), Some("spillway_operator_"));
    assert_eq!(documents::prefix("operator/src/render.rs", "(\"name\", \"some words\")"), None);
    let texts = [
        ("docs/reference/metrics.md", "| `spillway_operator_config_waiting_polls` |".to_owned()),
        ("operator/src/webhook.rs", registering.to_owned()),
        ("operator/src/stats.rs", registering.replace("webhook_reviews", "config_waiting_polls")),
    ];
    let mut findings = Vec::new();
    documents::check(&texts, &mut findings);
    let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let expected = "docs/reference/metrics.md:1: does not name `spillway_operator_webhook_reviews`, which the code has";
    assert_eq!(found, [expected]);
    let manifest = "[workspace.dependencies]\nown = { path = \"own\" }\nserde = { version = \"1\" }\n# tests\ninsta = \"1\"\n\n[lints]\nx = 1\n";
    assert_eq!(documents::dependencies(manifest).collect::<Vec<_>>(), ["serde", "insta"]);
}

#[test]
fn dependencies_that_nobody_names_are_found() {
    let texts = [
        (
            "Cargo.toml",
            "[workspace.dependencies]\nused-crate = \"1\"\nidle = \"1\"\nforgotten = { version = \"1\" }\n".to_owned(),
        ),
        (
            "delivery/Cargo.toml",
            "[dependencies]\nused-crate.workspace = true\nidle = { workspace = true }\n\n[lints]\nworkspace = true\n"
                .to_owned(),
        ),
        ("delivery/src/lib.rs", "//! Says idle.\nuse used_crate::Thing;\n".to_owned()),
    ];
    let members = ["delivery".to_owned()];
    let mut findings = Vec::new();
    dependencies::check(&texts, &members, &source::all(&texts, &members), &mut findings);
    let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "delivery/Cargo.toml:1: asks for `idle`, which none of its files names",
            "Cargo.toml:1: lists `forgotten`, which no crate asks for"
        ]
    );
}

#[test]
fn a_backend_connects_by_the_one_client_that_knows_the_rules() {
    let text = "fn f() {\n    let client = reqwest::Client::builder();\n    drop(tokio::net::lookup_host(\"x\"));\n    \
                let fine = HttpClient::new(x);\n}\n";
    let paths = ["backends/src/x.rs", "backends/src/http_client.rs", "backends/src/x/tests.rs", "agent/src/x.rs"];
    let texts = paths.map(|path| (path, text.to_owned()));
    let mut findings = Vec::new();
    for source in source::all(&texts, &["backends".to_owned(), "agent".to_owned()]) {
        code::check(&source, &mut findings);
    }
    let found: Vec<_> = findings.iter().map(|finding| (finding.path.as_str(), finding.line)).collect();
    assert_eq!(found, [("backends/src/x.rs", 2), ("backends/src/x.rs", 3), ("backends/src/http_client.rs", 3)]);
    for other in [
        "reqwest::Client::new()",
        "Client::default()",
        "ClientBuilder::new()",
        "reqwest::get(x)",
        "(host, 0).to_socket_addrs()",
    ] {
        let texts = [("backends/src/x.rs", format!("fn f() {{\n    {other};\n}}\n"))];
        let mut findings = Vec::new();
        source::all(&texts, &["backends".to_owned()]).iter().for_each(|source| code::check(source, &mut findings));
        assert_eq!(findings.len(), 1, "{other}");
    }
}
