//! One connection, from its first line to its end.
//!
//! # Expected flow
//! The first line may say who sends, which pipeline is meant and what is read back ([`super::control`]). Lines gather in a batch;
//! it ends when nothing more comes at the moment, by its bounds, or where the client says so. It is kept before anything more is
//! read, and then answered where that was asked for.
//!
//! # Guarantees
//! - What is answered as accepted has reached the durability of every pipeline that it is for.
//! - Where answers are read, lines that are not kept are told so. Where none are, the connection is not read from until
//!   they are; what is read and cannot be kept at a stop, or since its pipeline is gone, is counted as lost.
//!
//! # Cancel safety
//! Lines that are not answered may be kept.

use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::event::IdempotencyKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::{self, About, Hope, Refusal};
use super::batch::Batch;
use super::control::{self, Answers, Control, Hello};
use super::limits::{
    BATCH_BYTES, BATCH_EVENTS, BYTES_TIMEOUT, CONTROL_BYTES_MAX, GONE_AFTER, KEYED_BATCH_BYTES_MAX,
    KEYED_BATCH_EVENTS_MAX, LINGER_BYTES_MAX, LINGER_TIMEOUT, Limit, REFUSED_AFTER, RETRY_EVERY_MAX, RETRY_EVERY_MIN,
    WRITE_TIMEOUT,
};
use super::reader::{Line, LineReader};
use super::shared::Shared;
use super::stats::Figure;
use super::times::{Due, Times};
use crate::sources::pushed::events::Events;
use crate::sources::pushed::reading::Filled;
use crate::sources::pushed::sender::Sender;
use crate::sources::pushed::strangers::is_http;
use crate::sources::pushed::targets::{Submission, select};

/// A connection.
pub(super) struct Connection<S> {
    shared: Arc<Shared>,
    stop: CancellationToken,
    reader: LineReader<S>,
    batch: Batch,
    /// `None` until the first line came.
    terms: Option<Terms>,
    /// The number of the last line that was taken into the batch or did not belong into one.
    line: u64,
    times: Times,
}

/// What the first line said.
struct Terms {
    sender: Sender,
    pipeline: Option<String>,
    answers: Answers,
}

/// How a connection ends.
enum Ended {
    /// The client has sent all.
    Closed,
    /// It broke.
    Broken,
    /// The source is told to stop.
    Stopped,
    /// The client does not read.
    Deaf,
    /// It is closed for a reason.
    Refused(Refusal),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Returns the connection over `stream`, which ends by itself after `stop`.
    pub(super) fn new(stream: S, shared: Arc<Shared>, stop: CancellationToken) -> Self {
        let reader = LineReader::new(stream, shared.budget.clone());
        let (batch, times) = (Batch::new(&shared.budget), Times::new(shared.wants_token()));
        Self { shared, stop, reader, batch, terms: None, line: 0, times }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        let ended = loop {
            if let Err(ended) = self.take_lines().await {
                break ended;
            }
            match self.fill().await {
                Ok(()) => {}
                Err(ended) => break self.take_rest(ended).await,
            }
        };
        self.finish(ended).await;
    }

    fn answers(&self) -> Answers {
        self.terms.as_ref().map_or(Answers::None, |terms| terms.answers)
    }

    /// Takes the lines that are there, and ends the batch where it is time.
    async fn take_lines(&mut self) -> Result<(), Ended> {
        let before = self.reader.number();
        while let Some(line) = self.reader.next_line() {
            self.take(line).await?;
        }
        if self.reader.number() > before {
            self.times.pace.whole();
        }
        self.times.pace.inside(self.reader.is_inside());
        if self.terms.is_none() && self.shared.wants_token() && self.reader.inside_bytes() > CONTROL_BYTES_MAX {
            return Err(self.limited(Limit::ControlBytes));
        }
        let is_due = self.times.pace.is_due(self.batch.since);
        if is_due && self.answers() != Answers::Batches { self.settle(None).await } else { Ok(()) }
    }

    /// Takes what stands behind the last line break, and keeps what is still to be kept.
    async fn take_rest(&mut self, ended: Ended) -> Ended {
        if matches!(ended, Ended::Refused(_)) && self.answers() != Answers::None {
            return ended;
        }
        if matches!(ended, Ended::Closed) {
            if let Some(line) = self.reader.last_line()
                && let Err(ended) = self.take(line).await
            {
                return ended;
            }
        } else if self.reader.is_inside() {
            self.shared.stats.add(Figure::CutLines, 1);
        }
        if self.answers() == Answers::Batches {
            return ended;
        }
        self.settle(None).await.err().unwrap_or(ended)
    }

    async fn take(&mut self, line: Line) -> Result<(), Ended> {
        let (number, is_first) = (self.reader.number(), self.terms.is_none());
        let text = match &line {
            Line::Whole(span) => self.reader.text(span.clone()),
            Line::TooLong(_) => &[],
        };
        if (is_first || self.answers() == Answers::Batches) && control::is_control(text) {
            if text.len() > CONTROL_BYTES_MAX {
                return Err(self.limited(Limit::ControlBytes));
            }
            let told = |why| Ended::Refused(Refusal::new("control", format!("line {number}: {why}")));
            let control = control::read(text).map_err(told)?;
            self.line = number;
            return match control {
                Control::Hello(hello) if is_first => self.greet(hello, true).await,
                Control::End(key) if !is_first => self.settle(Some(key)).await,
                Control::Hello(_) => Err(told("only the first line says how the connection is meant".to_owned())),
                Control::End(_) => {
                    Err(told("`end` needs a first line {\"spillway\":{\"answers\":\"batches\"}}".to_owned()))
                }
            };
        }
        if is_first {
            if is_http(text) {
                let message = "this listener takes one JSON object on each line; HTTP is taken at --http";
                return Err(Ended::Refused(Refusal::new("http", message)));
            }
            self.greet(Hello::default(), false).await?;
        }
        self.add(line, number).await
    }

    /// Finds out who sends to which pipeline.
    async fn greet(&mut self, hello: Hello, is_said: bool) -> Result<(), Ended> {
        let Hello { token, pipeline, answers } = hello;
        let sender = self.shared.admit(token.as_deref()).map_err(Ended::Refused)?;
        let names = self.shared.door.names(&sender);
        let selected = select(&names, pipeline.as_deref());
        self.terms = Some(Terms { sender, pipeline, answers });
        self.times.greeted();
        selected.map_err(|why| Ended::Refused(why.into()))?;
        if is_said && answers != Answers::None {
            let about = About { line: self.line, key: None };
            self.say(&answer::settled(&about, 0, &crate::sources::pushed::events::Refusals::default())).await?;
        }
        Ok(())
    }

    /// Adds a line to the batch.
    async fn add(&mut self, line: Line, number: u64) -> Result<(), Ended> {
        let is_keyed = self.answers() == Answers::Batches;
        let bytes = if let Line::Whole(span) = &line { span.len() } else { 0 };
        if is_keyed && self.batch.bytes + bytes >= KEYED_BATCH_BYTES_MAX {
            return Err(self.limited(Limit::BatchBytes));
        }
        let since = Instant::now();
        while self.batch.make_room(bytes, &self.shared.arenas).await.is_err() {
            if is_keyed || self.batch.is_empty() {
                if since.elapsed() >= BYTES_TIMEOUT {
                    return Err(self.limited(Limit::Bytes));
                }
            } else {
                self.settle(None).await?;
            }
            self.shared.stats.limited(Limit::Bytes);
        }
        self.times.pace.resume();
        match line {
            Line::Whole(span) => self.batch.push(self.reader.text(span), number),
            Line::TooLong(bytes) => self.batch.push_too_large(bytes, number),
        }
        self.line = number;
        let seen = self.batch.events.seen();
        if is_keyed {
            return if seen > KEYED_BATCH_EVENTS_MAX { Err(self.limited(Limit::BatchEvents)) } else { Ok(()) };
        }
        if self.batch.bytes >= BATCH_BYTES || seen >= BATCH_EVENTS { self.settle(None).await } else { Ok(()) }
    }

    /// Ends the batch: keeps it, and answers.
    async fn settle(&mut self, key: Option<String>) -> Result<(), Ended> {
        let batch = std::mem::replace(&mut self.batch, Batch::new(&self.shared.budget));
        if batch.is_empty() && key.is_none() {
            return Ok(());
        }
        let answers = self.answers();
        let digest = batch.digest();
        let (Events { payload, ends, refusals }, lease) = batch.end();
        self.shared.refused(&refusals, answers != Answers::None);
        let about = About { line: self.line, key };
        let events = ends.len() as u64;
        let kept = if ends.is_empty() {
            Ok(())
        } else {
            let key = about.key.as_ref().map(|key| key.clone().into_bytes().into());
            let bytes = payload.len() as u64;
            let payload = self.shared.arenas.seal(payload);
            let submission = Submission { payload, ends, received: self.shared.clock.now(), key: None };
            self.keep(submission, key.map(|key| (key, digest))).await.inspect(|()| {
                for (figure, by) in
                    [(Figure::Batches, 1), (Figure::AcceptedEvents, events), (Figure::AcceptedBytes, bytes)]
                {
                    self.shared.stats.add(figure, by);
                }
            })
        };
        drop(lease);
        self.times.pace.resume();
        match kept {
            Ok(()) if answers == Answers::None => Ok(()),
            Ok(()) => self.say(&answer::settled(&about, events, &refusals)).await,
            Err(refusal) if answers == Answers::None => {
                self.shared.lost(events, &refusal.message);
                Err(Ended::Refused(refusal))
            }
            Err(refusal) => {
                self.shared.stats.refused(refusal.code);
                self.say(&answer::refused(Some(&about), &refusal)).await
            }
        }
    }

    /// Has the pipelines keep a batch, and waits for them as long as its sender does.
    async fn keep(&self, submission: Submission, key: Option<(bytes::Bytes, u128)>) -> Result<(), Refusal> {
        let Some(Terms { sender, pipeline, answers }) = &self.terms else { return Ok(()) };
        let key = key.map(|(key, body_hash)| IdempotencyKey { sender: sender.key.clone(), key, body_hash });
        let submission = Submission { key, ..submission };
        let since = Instant::now();
        let mut waiting = None;
        loop {
            let names = self.shared.door.names(sender);
            let refusal = match select(&names, pipeline.as_deref()) {
                Ok(selection) => match self.shared.door.submit(sender, selection, submission.clone()).await {
                    Ok(_) => return Ok(()),
                    Err(error) => Refusal::from(&error),
                },
                Err(why) => why.into(),
            };
            let within = |most| since.elapsed() < most;
            let is_waited_for = match (refusal.hope, answers) {
                (Hope::None, _) | (Hope::Half, Answers::Lines) => false,
                (Hope::Pipeline, _) => within(GONE_AFTER),
                (Hope::Later | Hope::Half, Answers::None) => true,
                (Hope::Later | Hope::Half, _) => within(REFUSED_AFTER),
            };
            if !is_waited_for || self.stop.is_cancelled() {
                return Err(refusal);
            }
            waiting.get_or_insert_with(|| self.shared.stats.now(Figure::WaitingConnections));
            let pause = refusal.retry_after.unwrap_or(RETRY_EVERY_MIN).clamp(RETRY_EVERY_MIN, RETRY_EVERY_MAX);
            self.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// Reads more, or finds that the batch is to be ended, or the connection.
    async fn fill(&mut self) -> Result<(), Ended> {
        loop {
            let (since, answers) = (self.batch.since, self.answers());
            if let Some(due) = self.times.overdue(since, answers) {
                return self.due(due);
            }
            let (deadline, due) = self.times.next(since, answers);
            let filled = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !self.times.pace.is_stopping() => {
                    self.times.pace.stop();
                    continue;
                }
                filled = self.reader.fill() => filled,
                () = tokio::time::sleep_until(deadline) => return self.due(due),
            };
            match filled {
                Filled::Some { bytes, all_room } => {
                    self.shared.stats.add(Figure::WireBytes, bytes as u64);
                    self.times.read(all_room);
                    return Ok(());
                }
                Filled::End => return Err(Ended::Closed),
                Filled::Broken(error) => {
                    tracing::debug!(way = self.shared.way.as_str(), %error, "a connection broke");
                    return Err(Ended::Broken);
                }
                Filled::NoRoom => {
                    if self.times.starved() >= BYTES_TIMEOUT {
                        return Err(self.limited(Limit::Bytes));
                    }
                    self.shared.stats.limited(Limit::Bytes);
                    self.times.pace.resume();
                    if !self.batch.is_empty() && self.answers() != Answers::Batches {
                        self.times.pace.drained();
                        return Ok(());
                    }
                }
            }
        }
    }

    fn due(&mut self, due: Due) -> Result<(), Ended> {
        match due {
            Due::Batch => {
                self.times.pace.drained();
                Ok(())
            }
            Due::Stop => Err(Ended::Stopped),
            Due::Limit(limit) => Err(self.limited(limit)),
        }
    }

    fn limited(&self, limit: Limit) -> Ended {
        self.shared.stats.limited(limit);
        Ended::Refused(Refusal::limit(limit))
    }

    async fn say(&mut self, line: &[u8]) -> Result<(), Ended> {
        let stream = &mut self.reader.from.stream;
        let saying = async {
            stream.write_all(line).await?;
            stream.flush().await
        };
        match timeout(WRITE_TIMEOUT, saying).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Broken),
            Err(_) => {
                self.shared.stats.limited(Limit::WriteTime);
                Err(Ended::Deaf)
            }
        }
    }

    async fn finish(mut self, ended: Ended) {
        let refusal = match ended {
            Ended::Broken | Ended::Deaf => return,
            Ended::Closed if self.batch.is_empty() => None,
            Ended::Closed => {
                Some(Refusal::new("unfinished_batch", "the last batch has no `end`, nothing of it was kept"))
            }
            Ended::Stopped if self.answers() == Answers::None => None,
            Ended::Stopped => {
                let message = "the agent stops; what was not answered was not kept, or not for certain";
                Some(Refusal::new("stopping", message).after(Duration::from_secs(1)))
            }
            Ended::Refused(refusal) => Some(refusal),
        };
        if let Some(refusal) = &refusal {
            self.shared.stats.refused(refusal.code);
            if self.say(&answer::refused(None, refusal)).await.is_err() {
                return;
            }
        }
        let stream = &mut self.reader.from.stream;
        let lingering = async {
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
        };
        // Whether it heard is its own affair.
        drop(timeout(LINGER_TIMEOUT, lingering).await);
    }
}
