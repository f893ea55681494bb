use proptest::prelude::*;

use super::*;

fn settings(begins: Begins) -> Multiline {
    Multiline { begins, lines_max: 500, bytes_max: 65_536, wait: Duration::from_secs(1) }
}

fn pattern(text: &str) -> Multiline {
    settings(Begins::Pattern(Pattern::compile(text).unwrap()))
}

/// Returns the groups of a stream, and how many were cut.
fn groups<'l>(settings: &Multiline, lines: impl IntoIterator<Item = &'l str>) -> (Vec<String>, usize) {
    let (mut group, mut all, mut cut) = (Group::default(), Vec::new(), 0);
    let close = |group: &mut Group, all: &mut Vec<String>| {
        all.extend((group.lines() > 0).then(|| String::from_utf8(group.text().to_vec()).unwrap()));
        group.close();
    };
    for line in lines {
        let stands = group.stands(settings, line.as_bytes());
        cut += usize::from(stands == Stands::TooMuch);
        if stands != Stands::Within {
            close(&mut group, &mut all);
        }
        group.push(line.as_bytes());
    }
    close(&mut group, &mut all);
    (all, cut)
}

/// Takes a text apart into its groups, which `=` at the beginning of a line divides, and holds that against what comes of its lines.
#[track_caller]
fn assert_groups(traces: &[Trace], text: &str) {
    let expected: Vec<String> = text.split("=\n").map(|group| group.trim_end_matches('\n').to_owned()).collect();
    for traces in [traces, &[Trace::Java, Trace::Python, Trace::Go]] {
        let lines = expected.iter().flat_map(|group| group.split('\n'));
        assert_eq!(groups(&settings(Begins::NoTrace(traces.into())), lines), (expected.clone(), 0), "{traces:?}");
    }
}

#[test]
fn a_java_trace_is_one_event_with_its_causes_and_the_line_before_it() {
    assert_groups(
        &[Trace::Java],
        "\
2026-11-29 10:04:12,001 INFO  [main] c.f.Etcher - chamber 3 is ready
=
2026-11-29 10:04:12,123 ERROR [wafer-7] c.f.Etcher - recipe failed
com.fab12.etch.RecipeException: step 4 of OXIDE-9
	at com.fab12.etch.Recipe.run(Recipe.java:88)
	at com.fab12.etch.Etcher.lambda$start$0(Etcher.java:41) ~[etch-2.4.jar:2.4]
	at java.base/java.util.concurrent.ThreadPoolExecutor.runWorker(ThreadPoolExecutor.java:1144)
	Suppressed: java.io.IOException: valve is closed
		at com.fab12.gas.Valve.close(Valve.java:12)
		... 3 more
Caused by: java.util.concurrent.TimeoutException: no answer in 500 ms
	at com.fab12.gas.Flow.await(Flow.java:60)
	... 12 more
Caused by: java.net.SocketException
	at com.fab12.net.Line.read(Line.java:7)
	... 14 common frames omitted
=
2026-11-29 10:04:13,000 WARN  [main] c.f.Etcher - java.lang.Error is a class
=
Exception in thread \"main\" java.lang.NullPointerException: Cannot invoke \"Wafer.id()\"
	at com.fab12.Main.main(Main.java:5)
=
java.lang.IllegalStateException: printed by itself
	at com.fab12.Main.main(Main.java:9)
=
java.lang.IllegalStateException: printed by itself again
	at com.fab12.Main.main(Main.java:9)
=
bye
",
    );
}

#[test]
fn a_python_trace_is_one_event_with_what_was_raised_meanwhile() {
    assert_groups(
        &[Trace::Python],
        "\
INFO:etch:chamber 3 is ready
=
ERROR:etch:recipe failed
Traceback (most recent call last):
  File \"/srv/etch/recipe.py\", line 31, in run
    return STEPS[name](wafer)
           ~~~~~^^^^^^
KeyError: 'OXIDE-9'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"/srv/etch/main.py\", line 9, in <module>
    run(wafer)
etch.errors.RecipeError: step 4
=
INFO:etch:next wafer
=
ERROR:etch:the line before a trace is its own
Traceback (most recent call last):
  File \"/srv/etch/gas.py\", line 4, in flow
    raise Closed from error
gas.Closed

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File \"/srv/etch/gas.py\", line 9, in <module>
    flow()
KeyboardInterrupt
=
Traceback (most recent call last):
  File \"/srv/etch/a.py\", line 1, in <module>
ZeroDivisionError: division by zero
=
  + Exception Group Traceback (most recent call last):
  |   File \"/srv/etch/b.py\", line 2, in <module>
  |     raise ExceptionGroup(\"two\", [a, b])
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: a
    +------------------------------------
=
ERROR:etch:what cannot be compiled has no head
  File \"/srv/etch/c.py\", line 1
    def (:
        ^
SyntaxError: invalid syntax
=
done
",
    );
}

#[test]
fn a_go_panic_is_one_event_with_its_goroutines() {
    assert_groups(
        &[Trace::Go],
        "\
2026/11/29 10:04:12 listening on :8080
=
panic: recipe OXIDE-9 [recovered]
	panic: again

goroutine 1 [running]:
main.(*Etcher).run(0xc000012345, {0x4b1f2e, 0x7})
	/srv/etch/main.go:41 +0x1d
panic({0x45e0a0?, 0x4b8d20?})
	/usr/lib/go/src/runtime/panic.go:770 +0x132
...additional frames elided...
created by main.main in goroutine 1
	/srv/etch/main.go:12 +0x59

goroutine 18 [chan receive, 2 minutes]:
net/http.(*conn).serve(0xc0000a6000, {0x6d2f38, 0xc00009c000})
	/usr/lib/go/src/net/http/server.go:2009 +0x5f4
=
exit status 2
=
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x45fa6c]

goroutine 1 [running]:
main.main()
	/srv/etch/main.go:7 +0xc
=
2026/11/29 10:05:00 http: panic serving 10.0.0.7:4711: no wafer
goroutine 22 [running]:
net/http.(*conn).serve.func1()
	/usr/lib/go/src/net/http/server.go:1898 +0xbe
=
fatal error: all goroutines are asleep - deadlock!

goroutine 1 [semacquire]:
sync.runtime_Semacquire(0xc0000140d8?)
	/usr/lib/go/src/runtime/sema.go:62 +0x25
=
stopped (cleanly)
",
    );
}

#[test]
fn a_line_of_no_trace_is_an_event_by_itself_whatever_it_looks_like() {
    let lines = [
        "at the gate",
        "...",
        "Error: no package",
        "",
        "",
        "goroutine",
        "{\"a\":1}",
        "  indented",
        "TimeoutException: x",
    ];
    let all = settings(Begins::NoTrace(vec![Trace::Java, Trace::Python, Trace::Go]));
    assert_eq!(groups(&all, lines), (lines.map(str::to_owned).into(), 0));
}

#[test]
fn a_pattern_says_what_begins_an_event_and_what_comes_before_the_first_is_one() {
    let dated = pattern(r"^\d{4}-");
    let lines = ["rest", "of it", "2026-01-01 a", " b", "", "2026-01-02 c", "2026-01-03 d", "e"];
    let expected = ["rest\nof it", "2026-01-01 a\n b\n", "2026-01-02 c", "2026-01-03 d\ne"].map(str::to_owned);
    assert_eq!(groups(&dated, lines), (expected.into(), 0));
}

#[test]
fn a_group_ends_at_its_most_lines_and_bytes_and_a_trace_goes_on_in_the_next() {
    let frames: Vec<String> = (0..5).map(|number| format!("\tat a.B.c(B.java:{number})")).collect();
    let lines = || std::iter::once("a.b.SomeException: x").chain(frames.iter().map(String::as_str)).chain(["next"]);
    let traces = settings(Begins::NoTrace(vec![Trace::Java]));
    let (found, cut) = groups(&Multiline { lines_max: 3, ..traces.clone() }, lines());
    assert_eq!((found.len(), cut), (3, 1), "{found:?}");
    assert_eq!(found[1], frames[2..].join("\n"));
    // Exactly as many bytes fit, and no more.
    let two = "a.b.SomeException: x".len() + 1 + frames[0].len();
    assert_eq!(groups(&Multiline { bytes_max: two, ..traces.clone() }, lines()).0[0].len(), two);
    let (found, cut) = groups(&Multiline { bytes_max: two - 1, ..traces }, lines());
    assert_eq!(found[0], "a.b.SomeException: x");
    assert_eq!((found.len(), cut), (5, 3), "{found:?}");
}

proptest! {
    /// Groups are those of a plain reference: of all lines at once, cut where the pattern is found and where there is no room.
    #[test]
    fn groups_are_those_of_a_plain_reference(
        lines in prop::collection::vec("[ab]{0,6}", 0..60),
        lines_max in 2u32..6,
        bytes_max in 8usize..24,
    ) {
        let limited = Multiline { lines_max, bytes_max, ..pattern("^a") };
        let mut expected: Vec<Vec<&str>> = Vec::new();
        for line in &lines {
            let fits = |group: &Vec<&str>| {
                group.len() < lines_max as usize && group.join("\n").len() + 1 + line.len() <= bytes_max
            };
            match expected.last_mut().filter(|group| !line.starts_with('a') && fits(group)) {
                Some(group) => group.push(line),
                None => expected.push(vec![line]),
            }
        }
        let expected: Vec<String> = expected.iter().map(|group| group.join("\n")).collect();
        prop_assert_eq!(groups(&limited, lines.iter().map(String::as_str)).0, expected);
    }

    /// Whatever comes, no line is lost, doubled or moved.
    #[test]
    fn every_line_is_in_one_group_in_its_order(lines in prop::collection::vec(any_line(), 0..60)) {
        let all = settings(Begins::NoTrace(vec![Trace::Java, Trace::Python, Trace::Go]));
        let (found, _) = groups(&all, lines.iter().copied());
        prop_assert_eq!(found.join("\n"), lines.join("\n"));
    }
}

fn any_line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "text",
        "\tat a.B.c(B.java:1)",
        "a.b.CException: x",
        "Caused by: a.b.C",
        "\t... 2 more",
        "ValueError: x",
        "Traceback (most recent call last):",
        "  File \"a.py\", line 1, in f",
        "    f()",
        "panic: x",
        "\tpanic: y",
        "During handling of the above exception, another exception occurred:",
        "goroutine 1 [running]:",
        "main.f(0x1)",
        "\t/a.go:1 +0x1",
        "created by main.main",
        "[signal SIGSEGV: x]",
        "\r",
        "  | x",
    ])
}
