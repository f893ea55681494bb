//! Which settings change how a planned batch is written: only those that decide over its bytes and its name.

use serde_json::{Value, json};
use spillway_backends::{BackendSettings, BuildContext, build};
use spillway_delivery::settings::Metadata;

use crate::batches::context;
use crate::destinations::parse;

type Make = fn(Value) -> BackendSettings;

/// How settings are made, a whole one, edits that change the encoding, and edits that do not.
type Case = (Make, Value, Vec<Edit>, Vec<Edit>);

type Edit = (&'static str, Value);

#[tokio::test]
async fn only_what_decides_over_bytes_and_names_makes_another_encoding() {
    let directory = tempfile::tempdir().unwrap();
    let of = |make: Make, settings: &Value, metadata| {
        let context = BuildContext { metadata, ..context(directory.path()) };
        let traits = build(&make(settings.clone()), context).unwrap().traits();
        assert!(traits.keyed && traits.encoding != 0);
        traits.encoding
    };
    let secret = |name: &str| json!({"name": name, "key": "k"});
    let cases: [Case; 3] = [
        (
            |settings| BackendSettings::S3(parse(settings)),
            json!({"bucket": "events"}),
            vec![("key", json!("x/{id}")), ("compression", json!("Zstd"))],
            vec![
                ("bucket", json!("others")),
                ("region", json!("eu-central-1")),
                ("storageClass", json!("STANDARD_IA")),
            ],
        ),
        (
            |settings| BackendSettings::Http(parse(settings)),
            json!({"url": "http://127.0.0.1:1/in"}),
            vec![("format", json!("JSONArray")), ("compression", json!("Gzip"))],
            vec![("url", json!("http://127.0.0.1:2/in")), ("headers", json!([{"name": "X-Site", "value": "f"}]))],
        ),
        (
            |settings| BackendSettings::ManagedApi(parse(settings)),
            json!({"url": "http://127.0.0.1:1", "tokenSecretRef": secret("a")}),
            vec![("compression", json!("Zstd"))],
            vec![("url", json!("http://127.0.0.1:2")), ("tokenSecretRef", secret("b"))],
        ),
    ];
    for (make, settings, others, same) in cases {
        let before = of(make, &settings, Metadata::None);
        assert_eq!(of(make, &settings, Metadata::None), before, "a restart changes nothing");
        assert_ne!(of(make, &settings, Metadata::Full), before);
        for (edits, is_other) in [(others, true), (same, false)] {
            for (name, value) in edits {
                let mut edited = settings.clone();
                edited[name] = value.clone();
                assert_eq!(of(make, &edited, Metadata::None) != before, is_other, "{name}");
            }
        }
    }
}
