use super::*;

fn one(text: &str) -> Node {
    let documents = read(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(documents[0].problems, [], "{text}");
    documents.into_iter().next().unwrap().root.unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let told = |problem: &Problem| format!("{}:{} {}", problem.position.line, problem.position.column, problem.message);
    read(text).iter().flat_map(|document| &document.problems).map(told).collect()
}

fn at(node: &Node, path: &str) -> (usize, usize) {
    let position = node.at(path);
    (position.line, position.column)
}

#[test]
fn every_value_knows_its_place() {
    let root = one("a:\n  b: [x, {c: 1}]\n  \"d\": 'y'\nö: z\n");
    assert_eq!(at(&root, "a.b"), (2, 6));
    assert_eq!(at(&root, "a.b[1].c"), (2, 14));
    assert_eq!(at(&root, "a.d"), (3, 8));
    assert_eq!(at(&root, "ö"), (4, 4));
    assert_eq!(at(&root, "a.b[7].c"), (2, 6), "the nearest value around it");
}

#[test]
fn quotes_and_tags_make_text_of_a_number() {
    let root = one("- 2\n- \"2\"\n- '2'\n- !!str 2\n- |-\n  2\n");
    let texts: Vec<_> = root.items().iter().map(Node::text).collect();
    assert_eq!(texts, [None, Some("2"), Some("2"), Some("2"), Some("2")]);
}

#[test]
fn unknown_tags_are_told() {
    for text in ["a: !secret x", "a: !!binary eA==", "a: !!int x", "a: !!set {x: }", "a: !!timestamp 2026-01-01"] {
        let told = problems(text);
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        assert!(told[0].ends_with("a tag that is not known here or does not fit its value"), "{told:?}");
    }
}

#[test]
fn aliases_and_merge_keys_stand_for_what_they_name() {
    let root = one("a: &x {k: 1, l: 2}\nb: *x\nc: {<<: *x, l: 3}\nd: {<<: [*x, {m: 4}], k: 5}\n");
    let value = |path: [&str; 2]| match &root.get(path[0]).unwrap().get(path[1]).unwrap().value {
        Value::Scalar { text, .. } => text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(value(["b", "k"]), "1");
    assert_eq!(at(&root, "b.k"), (1, 11), "where it is written");
    assert_eq!([value(["c", "k"]), value(["c", "l"])], ["1", "3"]);
    assert_eq!([value(["d", "k"]), value(["d", "l"]), value(["d", "m"])], ["5", "2", "4"]);
    assert_eq!(problems("a: {<<: 1}"), ["1:5 a merge key must name an object"]);
}

#[test]
fn a_duplicate_key_is_told_and_the_first_one_counts() {
    let documents = read("a: 1\nb: 2\na: 3\n");
    assert_eq!(problems("a: 1\nb: 2\na: 3\n"), ["3:1 duplicate field, first set in line 1"]);
    let root = documents[0].root.as_ref().unwrap();
    assert_eq!(at(root, "a"), (1, 4));
    assert_eq!(problems("a: {b: 1, b: 1}\nc: {d: 1, d: 1}\n").len(), 2);
}

#[test]
fn a_broken_document_does_not_hide_the_others() {
    let documents = read("a: 1\n---\nb: [1, 2\n---\nc: 3\n---\n---\n# nothing\n---\nd: : 4\n");
    let roots: Vec<bool> = documents.iter().map(|document| document.root.is_some()).collect();
    assert_eq!(roots, [true, false, true, false]);
    assert!(documents[1].problems[0].message.starts_with("not YAML: "), "{documents:?}");
    assert_eq!(documents[3].problems[0].position.line, 10);
}

#[test]
fn empty_files_and_comments_are_nothing() {
    for text in ["", "\n\n", "# a comment\n", "---\n", "---\n...\n---\n# x\n", "\u{feff}"] {
        assert!(read(text).is_empty(), "{text:?}");
    }
}

#[test]
fn json_is_yaml_with_tabs_and_escapes() {
    let root = one("{\n\t\"a\": {\"b\": [1, true, null, \"\\ud83d\\ude00\\n\\/\"]},\r\n\t\"c\": -1.5e3\n}\n");
    let items = root.get("a").unwrap().get("b").unwrap().items();
    assert_eq!(items[3].text(), Some("😀\n/"));
    assert_eq!(at(&root, "a.b[1]"), (2, 17));
    assert!(items[2].is_null());
}

#[test]
fn an_alias_bomb_stops_at_its_weight() {
    let first = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    let level = |level: usize| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
    let text = first + &(1..40).map(level).collect::<Vec<_>>().concat();
    let told = problems(&text);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("too much data with every alias resolved"), "{told:?}");
}

#[test]
fn an_alias_of_long_text_weighs_its_text() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100_000].join(", "));
    assert_eq!(problems(&text).len(), 1);
}

#[test]
fn depth_is_bounded_however_it_is_reached() {
    for text in [
        "[".repeat(10_000),
        "{a: ".repeat(10_000),
        (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<Vec<_>>().concat(),
        "- ".repeat(10_000),
        "? ".repeat(10_000),
    ] {
        assert_eq!(problems(&text).len(), 1, "{}", &text[..20]);
    }
    // Each alias adds 40 levels to the one before.
    let (open, close) = ("[".repeat(40), "]".repeat(40));
    let text = format!("a0: &a0 {open}x{close}\na1: &a1 {open}*a0{close}\n");
    assert_eq!(problems(&text), ["2:49 nested too deeply"]);
    assert!(problems(&format!("a: {}x{}\n", "[".repeat(60), "]".repeat(60))).is_empty());
}

#[test]
fn an_alias_of_itself_or_of_nothing_is_told() {
    assert_eq!(problems("a: &a [*a]"), ["1:8 an alias inside the value that it stands for"]);
    assert_eq!(problems("a: *b").len(), 1);
    assert_eq!(problems("a: &b x\n---\na: *b").len(), 1, "anchors end with their document");
}

#[test]
fn a_field_name_must_be_text() {
    assert_eq!(problems("{[a]: 1}"), ["1:2 a field name must be text"]);
    assert!(one("1: a\ntrue: b\n").get("1").is_some());
}
