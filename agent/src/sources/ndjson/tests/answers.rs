//! What clients read.

use super::*;
use crate::sources::pushed::targets::Selection;

const LINES: &str = r#"{"spillway":{"answers":"lines"}}"#;
const BATCHES: &str = r#"{"spillway":{"answers":"batches"}}"#;

#[tokio::test]
async fn each_answer_says_up_to_which_line_all_is_kept() {
    let world = World::new();
    let mut client = world.greeted(LINES).await;
    client.say("{\"a\":1}").await;
    assert_eq!(client.answer().await, json!({"line": 2, "accepted": 1}));
    client.say("{\"a\":2}\n\n{\"a\":3}").await;
    assert_eq!(client.answer().await, json!({"line": 5, "accepted": 2}));
    client.say("").await;
    assert_eq!(client.answer().await, json!({"line": 6, "accepted": 0}), "a blank line asks whether somebody is there");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.next().await, None);
    assert_eq!(world.recorder.payloads().concat(), "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
}

#[tokio::test]
async fn a_bad_line_is_told_by_its_number_and_its_neighbours_are_kept() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (bad, code, column) in [
        (&b"{\"a\":\"\0\"}"[..], "malformed", 7),
        (b"\0", "malformed", 1),
        (b"{\"a\":\"\xff\"}", "invalid_utf8", 7),
        (deep.as_bytes(), "too_deep", 133),
        (b"{\"a\":", "malformed", 6),
        (b"[{}]", "not_an_object", 1),
        (b"12", "not_an_object", 1),
        (b"hello", "malformed", 1),
        (b"{} {}", "malformed", 4),
    ] {
        let world = World::new();
        let text = [LINES.as_bytes(), b"\n{\"a\":1}\n", bad, b"\n{\"b\":2}\n"].concat();
        let answers = world.send(&text).await;
        let [_, answer] = &answers[..] else { panic!("{answers:?}") };
        let error = &answer["errors"][0];
        assert_eq!((&answer["accepted"], &answer["refused"], &answer["line"]), (&json!(2), &json!(1), &json!(4)));
        assert_eq!((&error["index"], &error["line"], &error["code"]), (&json!(1), &json!(3), &json!(code)), "{error}");
        assert_eq!(error["column"], column, "{error}");
        let place = format!("line 3, column {column}: ");
        assert!(error["message"].as_str().unwrap().starts_with(&place), "{error}");
        assert_eq!(world.recorder.payloads().concat(), "{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(world.stats.kinds().find(|(known, _)| *known == code).unwrap().1, 1);
    }
}

#[tokio::test]
async fn a_line_of_100_mb_is_refused_by_its_number_and_costs_no_memory() {
    let world = World::new();
    let mut client = world.greeted(LINES).await;
    client.say("{\"a\":1}").await;
    assert_eq!(client.answer().await["accepted"], 1);
    client.stream.write_all(b"{\"a\":\"").await.unwrap();
    let piece = vec![b'x'; 1 << 16];
    let mut most = 0;
    for _ in 0..1600 {
        client.stream.write_all(&piece).await.unwrap();
        let budget = &world.shared.budget;
        most = most.max(super::super::limits::BYTES_MAX - budget.free_bytes());
    }
    client.say("\"}\n{\"b\":2}").await;
    let answer = client.answer().await;
    let rest = if answer["accepted"] == 0 { client.answer().await } else { answer.clone() };
    assert_eq!((&answer["refused"], &answer["errors"][0]["line"]), (&json!(1), &json!(3)), "{answer}");
    assert_eq!(answer["errors"][0]["code"], "event_too_large");
    assert!(
        answer["errors"][0]["message"].as_str().unwrap().contains("has 104857608 bytes, at most 1048576"),
        "{answer}"
    );
    assert_eq!(rest["accepted"], 1);
    assert!(most <= 2 << 20, "{most} bytes");
    assert_eq!(world.limit("line_bytes"), 1);
}

#[tokio::test]
async fn the_client_ends_batches_and_gives_each_a_key() {
    let world = World::new();
    let mut client = world.greeted(BATCHES).await;
    for _ in 0..2 {
        client.say("{\"a\":1}\nbad\n{\"a\":2}\n{\"spillway\":{\"end\":\"k-1\"}}").await;
    }
    let (first, again) = (client.answer().await, client.answer().await);
    assert_eq!((&first["key"], &first["accepted"], &first["refused"]), (&json!("k-1"), &json!(2), &json!(1)));
    assert_eq!((&first["line"], &again["line"], &again["errors"][0]["line"]), (&json!(5), &json!(9), &json!(7)));
    client.say("{\"a\":3}\nbad\n{\"a\":4}\n{\"spillway\":{\"end\":\"k-2\"}}\n{\"spillway\":{\"end\":\"k-3\"}}").await;
    let other = client.answer().await;
    assert_eq!((&other["key"], &other["accepted"], &other["line"]), (&json!("k-2"), &json!(2), &json!(13)));
    assert_eq!(client.answer().await, json!({"line": 14, "key": "k-3", "accepted": 0}));
    let kept = world.recorder.take();
    let keys: Vec<_> = kept.iter().map(|(_, kept)| kept.key.clone().unwrap()).collect();
    assert_eq!(keys.len(), 3);
    assert_eq!((&*keys[0].key, &*keys[0].sender), (&b"k-1"[..], &b"unix"[..]));
    assert_eq!(keys[0], keys[1], "the same lines under the same key are a repeat");
    assert_ne!(keys[0].body_hash, keys[2].body_hash, "as many other lines are none");
    // What has no end is not kept, and said to be not.
    client.say("{\"a\":4}").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.answer().await["code"], "unfinished_batch");
    assert!(world.recorder.take().is_empty());
    assert_eq!(world.refused("unfinished_batch"), 1);
}

#[tokio::test]
async fn a_key_with_other_lines_is_told_and_the_connection_goes_on() {
    let world = World::new();
    let mut client = world.greeted(BATCHES).await;
    world.recorder.answer(SubmitError::KeyReused);
    client.say("{}\n{\"spillway\":{\"end\":\"k\"}}").await;
    let answer = client.answer().await;
    assert_eq!((&answer["key"], &answer["code"], &answer["line"]), (&json!("k"), &json!("key_reused"), &json!(3)));
    assert!(answer["accepted"].is_null());
    client.say("{}\n{\"spillway\":{\"end\":\"l\"}}").await;
    assert_eq!(client.answer().await["accepted"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_pipeline_is_told_after_a_while_and_what_was_said_to_be_not_kept_is_not() {
    for hello in [LINES, BATCHES] {
        let world = World::new();
        let mut client = world.greeted(hello).await;
        (0..40).for_each(|_| world.recorder.refuse(RefusalReason::Full));
        client.say("{\"a\":1}\n{\"spillway\":{\"end\":\"k\"}}").await;
        let begun = tokio::time::Instant::now();
        let answer = client.answer().await;
        assert_eq!((&answer["code"], &answer["pipeline"]), (&json!("full"), &json!("jobs")), "{answer}");
        assert_eq!(answer["retryAfterSeconds"], 1);
        assert!(answer["message"].as_str().unwrap().contains("its log is full; nothing was kept"));
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert!(world.recorder.take().is_empty());
        assert_eq!(world.refused("full"), 1);
        world.recorder.answers.lock().unwrap().clear();
        client.say("{\"a\":1}\n{\"spillway\":{\"end\":\"k\"}}").await;
        assert_eq!(client.answer().await["accepted"].as_u64().map(|accepted| accepted > 0), Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn half_kept_is_repeated_under_a_key_and_told_where_there_is_none() {
    let unknown = || SubmitError::Unknown { pipeline: "jobs".into() };
    let world = World::new();
    let mut client = world.greeted(BATCHES).await;
    world.recorder.answer(unknown());
    client.say("{}\n{\"spillway\":{\"end\":\"k\"}}").await;
    assert_eq!(client.answer().await["accepted"], 1);
    let mut client = world.greeted(LINES).await;
    world.recorder.answer(unknown());
    client.say("{}").await;
    assert_eq!(client.answer().await["code"], "unknown");
}

#[tokio::test]
async fn the_first_line_names_the_pipeline_and_a_wrong_one_is_told_with_the_nearest() {
    let world = World::with(Recorder::new(&[("default", "jobs"), ("default", "logs")]));
    let named = |name: &str| format!("{{\"spillway\":{{\"answers\":\"lines\",\"pipeline\":\"{name}\"}}}}\n{{}}\n");
    let answers = world.send(named("logs").as_bytes()).await;
    assert_eq!(answers[1]["accepted"], 1);
    let selected = world.recorder.take().remove(0).0;
    let Selection::One(one) = selected else { panic!("{selected:?}") };
    assert_eq!(&*one.name, "logs");
    let answers = world.send(named("job").as_bytes()).await;
    assert_eq!((answers.len(), &answers[0]["code"]), (1, &json!("unknown_pipeline")));
    assert!(answers[0]["message"].as_str().unwrap().contains("the nearest name is \"jobs\""), "{answers:?}");
    assert!(world.recorder.take().is_empty());
}

#[tokio::test]
async fn a_control_line_that_is_not_understood_ends_the_connection_with_what_is_allowed() {
    let world = World::new();
    for (text, part) in [
        ("{\"spillway\":{\"answer\":true}}\n", "line 1: unknown field `answer`"),
        ("{\"spillway\":{\"end\":\"k\"}}\n", "`end` needs a first line"),
        (&format!("{BATCHES}\n{{}}\n{BATCHES}\n"), "line 3: only the first line"),
        (&format!("{BATCHES}\n{{\"spillway\":{{\"end\":7}}}}\n"), "line 2: invalid type"),
    ] {
        let answers = world.send(text.as_bytes()).await;
        let last = answers.last().unwrap();
        assert_eq!(last["code"], "control", "{answers:?}");
        assert!(last["message"].as_str().unwrap().contains(part), "{last}");
    }
    assert_eq!(world.refused("control"), 4);
    let http = world.send(b"POST / HTTP/1.1\r\nhost: a\r\n\r\n{\"a\":1}\n").await;
    assert_eq!(http[0]["code"], "http");
    // What only looks like one is an event where none is looked for.
    let answers = world.send(format!("{LINES}\n{{\"spillway\":{{\"end\":\"k\"}}}}\n").as_bytes()).await;
    assert_eq!(answers[1]["accepted"], 1);
    assert_eq!(world.recorder.payloads(), ["{\"spillway\":{\"end\":\"k\"}}\n"]);
}
