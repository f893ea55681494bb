//! What goes wrong around the operator, on a real API server: nothing is lost, an agent never goes back, and it mends itself.

use std::sync::{Arc, Mutex};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use spillway_tests::agent::Agent;
use spillway_tests::fleet::api::{Api, difference};
use spillway_tests::proxy::CuttingProxy;
use spillway_tests::scripted;
use tokio::time::Instant;

use super::world::{BACKEND, OWN, World, pipeline, pipeline_into};

/// How many edits come as fast as the API server takes them.
const EDITS: usize = 1000;

/// A line of a pod's log for so many edits.
const EDITS_EACH_LINE: usize = 20;

/// What no log, status or Event may show.
const SECRETS: [&str; 2] = ["canary-7f3a-one", "canary-7f3a-two"];

/// Returns the pipeline with another name of its route, which files are named after.
fn by(route: &str) -> String {
    pipeline("").replace("name: all", &format!("name: {route}"))
}

/// Waits until a line is in a file of the route called `name`.
fn wait_for_line_in(world: &World, agent: &mut Agent, text: &str, name: &str) {
    let files = || world.files_with(text);
    let told = || format!("{text} in {name}, only in {:?}", files());
    agent.eventually(told, |_| files().iter().any(|file| file.contains(&format!("/{name}/"))).then_some(()));
}

#[test]
fn a_leader_that_stood_still_takes_no_agent_back() {
    let Some(world) = World::start("a_leader_that_stood_still_takes_no_agent_back") else { return };
    let (first, second) = (world.replica("first"), world.replica("second"));
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut one = first.start();
    one.wait_until_leading();
    let mut two = second.start();
    let service = CuttingProxy::start(&address(first.port));
    let mut agent = world.agent(&format!("https://{}", service.address));
    agent.wait_for_line("operator answers");
    world.apply(&[BACKEND, &pipeline("")].join("---\n"));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "under the first");
    wait_for_line_in(&world, &mut agent, "under the first", "all");

    // It stands still with its Lease, its connections and what it gave out.
    one.process.signal(Signal::STOP);
    let begun = Instant::now();
    two.wait_until_leading();
    println!("the second leads {:.1} s after the first stood still", begun.elapsed().as_secs_f64());
    service.lead_to(&address(second.port));
    world.apply(&by("second"));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "under the second");
    wait_for_line_in(&world, &mut agent, "under the second", "second");

    // It wakes, the Service leads to it, and it has the old configuration in memory.
    service.lead_to(&address(first.port));
    one.process.signal(Signal::CONT);
    one.process.wait_for_line("not leading any more");
    agent.wait_for_line("no configuration from the operator");
    world.write("etcher", "fab12", "after it woke");
    wait_for_line_in(&world, &mut agent, "after it woke", "second");

    // And the other is still listened to.
    service.lead_to(&address(second.port));
    world.apply(&pipeline(""));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "under the second again");
    wait_for_line_in(&world, &mut agent, "under the second again", "all");
    assert_eq!(world.lines().len(), 4, "each line once: {:?}", world.lines());
    agent.stop();
    one.stop();
    two.stop();
}

#[test]
fn an_agent_that_meets_a_follower_is_led_to_who_leads_and_back_when_that_is_gone() {
    let name = "an_agent_that_meets_a_follower_is_led_to_who_leads_and_back_when_that_is_gone";
    let Some(world) = World::start(name) else { return };
    let (first, second) = (world.replica("first").that_leads_agents(), world.replica("second").that_leads_agents());
    let mut one = first.start();
    one.wait_until_leading();
    let mut two = second.start();
    two.process.wait_for_line("ready");
    // This is the only address it has, and behind it nobody leads.
    let mut agent = world.agent(&second.url());
    agent.wait_for_line("operator answers");
    world.apply(&[BACKEND, &pipeline("")].join("---\n"));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "led to the first");
    wait_for_line_in(&world, &mut agent, "led to the first", "all");

    one.kill();
    two.wait_until_leading();
    world.apply(&by("second"));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "under the second");
    wait_for_line_in(&world, &mut agent, "under the second", "second");
    assert_eq!(world.lines().len(), 2, "each line once: {:?}", world.lines());
    agent.stop();
    two.stop();
}

#[test]
fn without_an_api_server_everything_runs_on_and_then_edits_get_through() {
    let name = "without_an_api_server_everything_runs_on_and_then_edits_get_through";
    let Some(mut world) = World::start(name) else { return };
    let replica = world.replica("first");
    let (mut operator, mut agent) = world.run(&replica);
    world.apply(&[BACKEND, &pipeline("")].join("---\n"));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "before");
    world.wait_for_lines(&mut agent, 1);
    let etcher = world.uid("etcher", "fab12");

    world.api.kill();
    // Longer than it may lead without the Lease.
    operator.process.wait_for_line("not leading any more");
    world.write_of("etcher", "fab12", &etcher, "without an API server");
    world.wait_for_lines(&mut agent, 2);
    agent.kill();
    let mut agent = world.agent_as_mounted(&replica.url());
    world.write_of("etcher", "fab12", &etcher, "after a start without an API server");
    world.wait_for_lines(&mut agent, 3);

    world.api.start_again().unwrap();
    operator.wait_until_leading();
    world.apply(&by("second"));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "with the API server again");
    wait_for_line_in(&world, &mut agent, "with the API server again", "second");
    assert_eq!(world.lines().len(), 4, "each line once: {:?}", world.lines());
    agent.stop();
    operator.stop();
}

#[test]
fn a_thousand_edits_at_once_end_in_the_last_and_few_writes() {
    let Some(world) = World::start("a_thousand_edits_at_once_end_in_the_last_and_few_writes") else { return };
    let (operator, mut agent) = world.run(&world.replica("first"));
    world.apply(&[BACKEND, &pipeline("")].join("---\n"));
    world.wait_for("Ready", "True");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let api = Api::of(&world.api).unwrap();
    let before = runtime.block_on(api.counts()).unwrap();
    let begun = Instant::now();
    let etcher = world.uid("etcher", "fab12");
    let path = "/apis/spillway.dev/v1alpha1/namespaces/fab12/monitoringpipelines/jobs";
    for edit in 0..EDITS {
        let name = if edit + 1 == EDITS { "second" } else { "all" };
        let route =
            json!({"name": name, "match": format!("origin.pod != \"p{edit}\""), "backendRefs": [{"name": "archive"}]});
        runtime.block_on(api.send(Method::PATCH, path, &json!({"spec": {"routes": [route]}}))).unwrap();
        if edit % EDITS_EACH_LINE == 0 {
            world.write_of("etcher", "fab12", &etcher, &format!("line {edit}"));
        }
    }
    let (edited, after) = (begun.elapsed(), Instant::now());
    world.wait_for("Programmed", "True");
    let programmed = after.elapsed();
    world.write("etcher", "fab12", "the last");
    wait_for_line_in(&world, &mut agent, "the last", "second");
    let made = difference(&before, &runtime.block_on(api.counts()).unwrap());
    let writes = made.get(&("APPLY".to_owned(), "monitoringpipelines".to_owned())).copied().unwrap_or_default();
    println!(
        "{EDITS} edits in {:.1} s; programmed {:.1} s after the last; {writes} writes of status",
        edited.as_secs_f64(),
        programmed.as_secs_f64()
    );
    assert!(writes > 0, "{made:?}");
    assert!(writes <= begun.elapsed().as_secs() + 3, "status is written once a second at most: {writes}");
    let lines = world.lines();
    assert_eq!(lines.len(), EDITS / EDITS_EACH_LINE + 1, "each line once: {lines:?}");
    agent.stop();
    operator.stop();
}

#[test]
fn a_secret_that_goes_is_told_and_one_that_comes_back_is_used() {
    let Some(world) = World::start("a_secret_that_goes_is_told_and_one_that_comes_back_is_used") else { return };
    let came: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let kept = came.clone();
    let url = scripted::start(move |request| {
        let token = request.header("authorization").to_owned();
        let body = String::from_utf8_lossy(&request.body).into_owned();
        kept.lock().unwrap().extend(body.lines().map(|line| (token.clone(), line.to_owned())));
        Some((200, String::new()))
    });
    let tokens_of = |text: &str| -> Vec<String> {
        let came = came.lock().unwrap();
        came.iter().filter(|(_, line)| line.contains(text)).map(|(token, _)| token.clone()).collect()
    };
    let (operator, mut agent) = world.run(&world.replica("first"));
    let secret = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "lake", "namespace": OWN},
            "stringData": {"token": value}})
        .to_string()
    };
    let lake = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "ClusterBackend", "metadata": {"name": "lake"},
        "spec": {"type": "HTTP", "allowedNamespaces": {"selector": {}}, "secretNamespace": OWN,
            "http": {"url": format!("{url}/in"), "auth": {"bearer": {"tokenSecretRef": {"name": "lake", "key": "token"}}}}}});
    let [one, two] = SECRETS;
    world.apply(&secret(one));
    world.apply(&lake.to_string());
    world.apply(&pipeline_into("", "{kind: ClusterBackend, name: lake}"));
    world.wait_for("Ready", "True");
    world.write("etcher", "fab12", "with the first");
    let mut wait_for_tokens = |text: &str| {
        agent.eventually(|| text.to_owned(), |_| Some(tokens_of(text)).filter(|tokens| !tokens.is_empty()))
    };
    assert_eq!(wait_for_tokens("with the first"), [format!("Bearer {one}")], "it came once, with its token");

    world.api.must(&["delete", "secret", "lake", "-n", OWN], "");
    let begun = Instant::now();
    world.wait_for("ResolvedRefs", "False");
    println!("told {:.0} s after it went", begun.elapsed().as_secs_f64());
    let told = world.condition("ResolvedRefs");
    assert_eq!(told["reason"], "SecretNotFound", "{told}");
    // Kept while there is nothing to send it with, or sent with what the agent still has: lost it is not.
    world.write("etcher", "fab12", "without any");
    world.apply(&secret(two));
    let begun = Instant::now();
    world.wait_for("Ready", "True");
    println!("used {:.0} s after it came back", begun.elapsed().as_secs_f64());
    world.write("etcher", "fab12", "with the second");
    assert_eq!(wait_for_tokens("with the second"), [format!("Bearer {two}")], "it came once, with its token");
    assert_eq!(wait_for_tokens("without any").len(), 1, "{:?}", came.lock().unwrap());
    let objects = world.api.must(&["get", "monitoringpipelines,events,clusterbackends", "-A", "-o", "json"], "");
    let logs = format!("{:?}{:?}", agent.seen, operator.process.seen);
    let shown: Vec<&str> =
        SECRETS.into_iter().filter(|value| objects.contains(value) || logs.contains(value)).collect();
    assert!(!objects.is_empty() && logs.contains("leading"), "nothing was looked at: {logs}");
    assert_eq!(shown, [""; 0], "a value of a Secret is shown");
    agent.stop();
    operator.stop();
}

#[test]
fn names_at_their_limits_and_half_a_megabyte_of_pipeline_are_run() {
    let Some(world) = World::start("names_at_their_limits_and_half_a_megabyte_of_pipeline_are_run") else { return };
    let (operator, mut agent) = world.run(&world.replica("first"));
    let long = |begin: &str| format!("{begin}{}", "x".repeat(63 - begin.len()));
    let namespace = "n".repeat(63);
    world.api.must(&["create", "namespace", &namespace], "");
    // More the kubelet cannot: it names a folder after namespace, pod and uid, and a name has 255 bytes.
    let pod = format!("pod-{}", "x".repeat(255 - 63 - 36 - 2 - 4));
    world.pod(&pod, &namespace);
    let values: Vec<String> = (0..64).map(|number| format!("v{number:062}")).collect();
    let away: Vec<_> = (0..8).map(|_| json!({"key": "app", "operator": "NotIn", "values": values})).collect();
    let selector = json!({"matchLabels": {"app": "etcher"}, "matchExpressions": away});
    let inputs: Vec<_> = (0..16)
        .map(|number| {
            json!({"name": format!("logs-{number}"), "type": "ContainerLogs",
                "containerLogs": {"podSelector": selector, "containers": [if number == 0 { "main" } else { "none" }], "startAt": "Beginning"}})
        })
        .collect();
    let backend = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "Backend",
        "metadata": {"name": long("backend-"), "namespace": namespace}, "spec": {"type": "Filesystem", "filesystem": {}}});
    let pipeline = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "MonitoringPipeline",
        "metadata": {"name": long("pipeline-"), "namespace": namespace},
        "spec": {"inputs": inputs, "routes": [{"name": "all", "backendRefs": [{"name": long("backend-")}]}]}});
    assert!(pipeline.to_string().len() > 500_000, "{}", pipeline.to_string().len());
    world.api.must(&["create", "-f", "-"], &backend.to_string());
    world.api.must(&["create", "-f", "-"], &pipeline.to_string());
    let waited = ["wait", "--for=condition=Ready", "--timeout=60s", "-n", &namespace];
    world.api.must(&[&waited[..], &[&format!("monitoringpipeline/{}", long("pipeline-"))]].concat(), "");
    world.write(&pod, &namespace, "from far");
    world.wait_for_lines(&mut agent, 1);
    assert!(world.lines()[0].contains(&pod) && world.lines()[0].contains(&namespace), "{:?}", world.lines());
    agent.stop();
    operator.stop();
}
