//! The backend `S3` with keys of the machine: what gives them (STS for a web identity, a container's agent, an instance's
//! metadata) is made by hand on loopback and says what those say; the store that the keys are for is `SeaweedFS`.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spillway_tests::agent::Place;
use spillway_tests::output;
use spillway_tests::scripted::{self, Request};
use spillway_tests::servers::seaweedfs::{ACCESS_KEY, SECRET_KEY, SeaweedFs};

use crate::s3::{ids, manifests, post, wait_for_fault};

/// What proves to the giver who asks; the second one after a rotation.
const TOKENS: [&str; 2] = ["token-of-the-machine", "token-rotated"];

/// How long the first keys hold: as long as the agent needs to use them once.
const FIRST_KEYS_HOLD: &str = "16 seconds";

/// Gives keys: first some that the store does not know and that soon expire, later those that it knows.
#[derive(Debug)]
struct Giver {
    expires: String,
    gives_good: AtomicBool,
    /// How often keys were given, and refused for want of a token.
    given: [AtomicU64; 2],
    refused: AtomicU64,
}

impl Giver {
    fn new() -> Arc<Self> {
        let date = Command::new("date").args(["-u", "-d", FIRST_KEYS_HOLD, "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
        let expires = String::from_utf8(date.stdout).unwrap().trim().to_owned();
        let (given, refused) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
        Arc::new(Self { expires, gives_good: AtomicBool::new(false), given, refused })
    }

    /// Returns id, secret and end of the keys, for one who shows the right token.
    fn keys(&self, token: &str) -> Option<(&str, &str, &str)> {
        let good = usize::from(self.gives_good.load(Ordering::Acquire));
        if token != TOKENS[good] {
            self.refused.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        self.given[good].fetch_add(1, Ordering::AcqRel);
        Some([("AKEXPIRED", "expired-secret", &*self.expires), (ACCESS_KEY, SECRET_KEY, "2099-01-01T00:00:00Z")][good])
    }

    fn as_json(&self, token: &str) -> Answer {
        let Some((id, secret, end)) = self.keys(token) else { return (403, "", "{}".to_owned()) };
        let keys = serde_json::json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-27T00:00:00Z",
            "AccessKeyId": id, "SecretAccessKey": secret, "Token": "", "Expiration": end,
        });
        (200, "", keys.to_string())
    }
}

type Answer = (u16, &'static str, String);

/// `AssumeRoleWithWebIdentity` of STS.
fn web_identity(giver: &Giver, request: &Request) -> Answer {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let field = |name: &str| body.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default().to_owned();
    assert_eq!(field("Action="), "AssumeRoleWithWebIdentity");
    assert_eq!(field("RoleArn="), "arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fagent");
    let Some((id, secret, end)) = giver.keys(&field("WebIdentityToken=")) else {
        let error =
            "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>no</Message></Error></ErrorResponse>";
        return (400, "content-type: text/xml\r\n", error.to_owned());
    };
    let keys = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{id}</AccessKeyId>\
         <SecretAccessKey>{secret}</SecretAccessKey><SessionToken></SessionToken><Expiration>{end}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    (200, "content-type: text/xml\r\n", keys)
}

/// The agent of a container service.
fn container(giver: &Giver, request: &Request) -> Answer {
    assert_eq!(request.line, "GET /keys HTTP/1.1");
    giver.as_json(request.header("authorization"))
}

/// The metadata of an instance, version 2: a session first. An instance has no token of its own to show.
fn instance(giver: &Giver, request: &Request) -> Answer {
    const ROLES: &str = "GET /latest/meta-data/iam/security-credentials/";
    if request.line.starts_with("PUT /latest/api/token ") {
        assert!(!request.header("x-aws-ec2-metadata-token-ttl-seconds").is_empty());
        return (200, "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", "session".to_owned());
    }
    if request.header("x-aws-ec2-metadata-token") != "session" {
        giver.refused.fetch_add(1, Ordering::AcqRel);
        return (401, "", String::new());
    }
    match request.line.strip_prefix(ROLES) {
        Some(" HTTP/1.1") => (200, "", "agent".to_owned()),
        Some("agent HTTP/1.1") => giver.as_json(TOKENS[usize::from(giver.gives_good.load(Ordering::Acquire))]),
        _ => (404, "", String::new()),
    }
}

/// Gives keys in one way: to a place whose agent is told so, in the variables that the machine would set.
fn start(way: &str, giver: &Arc<Giver>, store: &SeaweedFs) -> Place {
    let answers = match way {
        "web identity" => web_identity,
        "container" => container,
        _ => instance,
    };
    let shared = giver.clone();
    let url = scripted::start_with(move |request| Some(answers(&shared, request)));
    let place = Place::new(&manifests(&format!("http://{}", store.address()), "compression: Gzip", ""));
    let token = place.path("token");
    fs::write(&token, TOKENS[0]).unwrap();
    let token = token.display().to_string();
    match way {
        "web identity" => place
            .variable("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
            .variable("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/agent")
            .variable("AWS_ROLE_SESSION_NAME", "agent")
            .variable("AWS_ENDPOINT_URL_STS", &url),
        "container" => place
            .variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{url}/keys"))
            .variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
        _ => place.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url),
    }
}

#[test]
fn keys_of_the_machine_that_expire_are_asked_for_anew_and_nothing_is_lost() {
    let Some(store) = SeaweedFs::start() else { return };
    let ways = ["web identity", "container", "instance"];
    let mut running: Vec<_> = ways
        .iter()
        .zip([0, 100, 200])
        .map(|(way, first)| {
            let giver = Giver::new();
            let place = start(way, &giver, &store);
            let agent = place.start();
            post(&agent.http, first, 100);
            (way, giver, place, agent)
        })
        .collect();
    for (way, giver, place, agent) in &mut running {
        wait_for_fault(agent, "unauthorized", "InvalidAccessKeyId");
        assert_eq!(giver.given[0].load(Ordering::Acquire), 1, "{way}: keys that hold are not asked for again");
        fs::write(place.path("token"), TOKENS[1]).unwrap();
        giver.gives_good.store(true, Ordering::Release);
    }
    assert_eq!(store.keys("lake"), [""; 0]);
    for (way, giver, _place, mut agent) in running {
        agent.wait_until_delivered(100);
        let told = format!("{:?} {} {}", agent.seen, agent.status(), agent.metrics());
        assert!(!told.contains("expired-secret") && !told.contains(SECRET_KEY), "{way}: {told}");
        agent.stop();
        let counts = [giver.given[1].load(Ordering::Acquire), giver.refused.load(Ordering::Acquire)];
        assert_eq!(counts, [1, 0], "{way}: given once more when the first had expired, and to nobody else");
    }
    output::assert_exactly_once(&store.lines("lake"), "id", &ids(0, 300), &ids(0, 300));
}
