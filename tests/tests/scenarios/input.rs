//! Hostile and broken input at the HTTP door of a real agent: precise answers, bounded memory, nothing lost.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use spillway_tests::agent::{Agent, Place};
use spillway_tests::http::{Answer, Client};
use spillway_tests::{PATIENCE, output};

use crate::fixtures;

fn resident_bytes(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_bad_line_in_a_batch_is_named_and_the_others_are_kept() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut agent = place.start();
    let answer = agent.post(b"{\"id\":\"a\"}\n{\"id\":\n{\"id\":\"c\"}\n", &[]);
    assert_eq!(answer.status, 207, "{}", answer.json());
    assert_eq!(answer.json()["accepted"], 2);
    assert_eq!(answer.json()["errors"][0]["index"], 1);
    agent.wait_until_delivered(2);
    agent.stop();
    let ids = ["a".to_owned(), "c".to_owned()];
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &ids, &ids);
}

#[test]
fn hostile_bodies_get_precise_answers_and_cost_little() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let agent = place.start();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (body, status) in [
        (b"{\"a\":\"\0\"}".to_vec(), 400),
        (b"{\"a\":\"\xff\"}".to_vec(), 400),
        (deep.into_bytes(), 400),
        (b"[1,2".to_vec(), 400),
        (b"hello".to_vec(), 400),
        (vec![b'{'; 17 << 20], 413),
    ] {
        let answer = agent.post(&body, &[]);
        assert_eq!(answer.status, status, "{}", answer.json());
        assert!(answer.json()["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

/// Eight at a time, in both codings, a quarter of a gigabyte each: what they cost is what the kernel saw at the worst moment.
#[test]
fn bombs_at_once_cost_no_more_than_all_bodies_may() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut agent = place.start();
    let spaces = vec![b' '; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    (0..256).for_each(|_| gzip.write_all(&spaces).unwrap());
    (0..256).for_each(|_| zstd.write_all(&spaces).unwrap());
    let bombs = [("gzip", gzip.finish().unwrap()), ("zstd", zstd.finish().unwrap())];
    let peak = agent.begin_peak();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..8)
            .map(|sender| {
                let ((coding, bomb), address) = (&bombs[sender % 2], &agent.http);
                let send =
                    move || Client::connect(address)?.send("POST", "/v1/events", &[("Content-Encoding", coding)], bomb);
                scope.spawn(move || (0..4).map(|_| send().unwrap()).collect::<Vec<_>>())
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), 32);
    let code = |answer: &Answer| answer.json()["code"].as_str().unwrap_or_default().to_owned();
    // Who finds the memory of all bodies taken by others is told to come again.
    for answer in answers.iter().filter(|answer| (answer.status, &*code(answer)) != (503, "busy")) {
        assert_eq!(answer.status, 413, "{}", answer.json());
        assert!(["ratio", "body_bytes"].contains(&&*code(answer)), "{}", answer.json());
    }
    assert!(
        answers.iter().filter(|answer| answer.status == 413).count() >= 8,
        "each sender saw at least its first refused"
    );
    let grown = peak.grown_bytes();
    println!("{grown} bytes");
    assert!(grown < BODIES_MEMORY_MAX, "{grown} bytes");
    fixtures::post(&agent.http, 0, 100);
    agent.wait_until_delivered(100);
    agent.stop();
    let all = fixtures::ids(0, 100);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

/// Most memory that bodies may cost: less than the buffer that holds such a line, which is 128 MiB as it grows by doubling. All
/// bodies under way may have 32 MiB together; seen were 49 to 84 MB, with what the allocator keeps of buffers that grew and
/// pages of the program itself.
const BODIES_MEMORY_MAX: u64 = 112 << 20;

/// Sends the beginning of a request and then a line without an end, while the answer is read; returns the answer and how
/// many bytes of the line went out.
fn send_endless(address: &str, head: &str, piece: &[u8]) -> anyhow::Result<(Answer, usize)> {
    let stream = TcpStream::connect(address)?;
    let mut writer = stream.try_clone()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writer.set_write_timeout(Some(PATIENCE))?;
    writer.write_all(head.as_bytes())?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let pieces = (0..100).take_while(|_| writer.write_all(piece).is_ok()).count();
            pieces * piece.len()
        });
        let answer = Client::over(stream, address).answer();
        let written = written.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        Ok((answer?, written))
    })
}

/// A line goes on for a hundred megabytes, whether its length is said beforehand or not.
#[test]
fn a_line_of_a_hundred_megabytes_is_refused_before_it_is_read() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut agent = place.start();
    let line = vec![b'x'; 1 << 20];
    let chunk = [b"100000\r\n", line.as_slice(), b"\r\n"].concat();
    let over = AtomicBool::new(false);
    let peak = agent.begin_peak();
    let (sent, answers) = std::thread::scope(|scope| {
        let (over, address) = (&over, &agent.http);
        // A neighbour goes on all the while.
        let neighbour = scope.spawn(move || {
            let batches = (0..).take_while(|batch| {
                fixtures::post(address, batch * 100, 100);
                !over.load(Ordering::Acquire)
            });
            (batches.count() as u64 + 1) * 100
        });
        let head = "POST /v1/events HTTP/1.1\r\nHost: a\r\n";
        let told = format!("{head}Content-Length: 104857600\r\n\r\n{{\"a\":\"");
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n6\r\n{{\"a\":\"\r\n");
        let ways = [(&told, &line), (&chunked, &chunk)].into_iter().cycle().take(6);
        let answers: Vec<_> = ways.map(|(head, piece)| send_endless(address, head, piece)).collect();
        over.store(true, Ordering::Release);
        (neighbour.join().unwrap(), answers)
    });
    for (index, answer) in answers.into_iter().enumerate() {
        let (answer, written) = answer.unwrap();
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 413, "{}", answer.json());
        // Where the length is not told, it depends on the last piece which of two bounds is met first: a byte apart.
        assert!(code == "wire_bytes" || code == "body_bytes" && index % 2 == 1, "{}", answer.json());
        assert_eq!(answer.json()["limit"], (16 << 20) - u64::from(code == "body_bytes"));
        assert!(written < 100 << 20, "all of it went out");
    }
    let grown = peak.grown_bytes();
    println!("{grown} bytes, and {sent} events of the neighbour");
    assert!(grown < BODIES_MEMORY_MAX, "{grown} bytes");
    agent.wait_until_delivered(sent);
    agent.stop();
    let all = fixtures::ids(0, sent);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

#[test]
fn a_thousand_idle_connections_and_half_a_request_leave_the_door_open() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut agent = place.start();
    let idle: Vec<TcpStream> = (0..1000).map(|_| TcpStream::connect(&agent.http).unwrap()).collect();
    let mut half = TcpStream::connect(&agent.http).unwrap();
    half.write_all(b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"id\":").unwrap();
    fixtures::post(&agent.http, 0, 100);
    assert!(resident_bytes(&agent) < 64 << 20, "{} bytes", resident_bytes(&agent));
    drop((idle, half));
    agent.wait_until_delivered(100);
    agent.stop();
    let all = fixtures::ids(0, 100);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

#[test]
fn what_an_event_says_of_its_origin_is_not_believed() {
    let place = Place::new(&fixtures::to_files("Disk"));
    let mut agent = place.start();
    let answer = agent.post(b"{\"_spillway\":{\"id\":\"forged\"},\"id\":\"a\",\"_\\u0073pillway\":1}", &[]);
    assert_eq!(answer.status, 202, "{}", answer.json());
    agent.wait_until_delivered(1);
    agent.stop();
    let lines = output::lines_below(&place.path("out"));
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].contains("forged") && lines[0].matches("pillway").count() == 1, "{}", lines[0]);
}
