use std::ffi::OsString;
use std::path::Path;

use super::list::SETTINGS;
use super::*;
use crate::cli::{Command, parse};

fn machine() -> Machine {
    Machine {
        root: false,
        cores: 16,
        host_name: Some("host-1".into()),
        kubelet_logs: None,
        api_server: None,
        gateways: Vec::new(),
    }
}

fn flags(args: &[&str]) -> RunFlags {
    let args = ["spillway-agent", "run"].iter().chain(args).map(OsString::from);
    let Command::Run(flags) = parse(args).unwrap().0.command else { panic!("not run") };
    *flags
}

fn settle(args: &[&str], file: &str) -> Result<Settings, SettingError> {
    settle_from(&flags(args), &[], file)
}

fn settle_from(flags: &RunFlags, from_environment: &[&str], file: &str) -> Result<Settings, SettingError> {
    let file = ConfigFile::parse(Path::new("agent.yaml"), file)?;
    Settings::settle(flags, &FromEnvironment::of(from_environment), &file, &machine())
}

fn refusal(args: &[&str], file: &str) -> String {
    settle(args, file).unwrap_err().to_string()
}

#[test]
fn defaults_fit_a_plain_user_on_a_machine_without_kubelet() {
    let settings = settle(&["-f", "/"], "").unwrap();
    assert_eq!(settings.data_dir, Path::new("./spillway-data"));
    assert_eq!(settings.filesystem_root, Path::new("./spillway-out"));
    assert_eq!(settings.http.unwrap().to_string(), "127.0.0.1:8411");
    assert_eq!(settings.admin.unwrap().to_string(), "127.0.0.1:8412");
    assert_eq!((settings.pod_logs, settings.free_bytes_min), (None, 16 << 20));
    assert_eq!(settings.drain, Duration::from_secs(25));
    assert_eq!(settings.threads, 4);
    assert_eq!(settings.node_name.as_deref(), Some("host-1"));
    assert_eq!(settings.logging, LogSettings { format: None, level: "info".into() });
}

#[test]
fn root_keeps_its_data_in_var() {
    let file = ConfigFile::default();
    let root = Machine { root: true, cores: 2, kubelet_logs: Some("/var/log/pods".into()), ..machine() };
    let settings = Settings::settle(&flags(&["-f", "/"]), &FromEnvironment::default(), &file, &root).unwrap();
    assert_eq!(settings.data_dir, Path::new("/var/lib/spillway"));
    assert_eq!(settings.filesystem_root, Path::new("/var/lib/spillway-out"));
    assert_eq!(settings.pod_logs.as_deref(), Some(Path::new("/var/log/pods")));
    assert_eq!(settings.threads, 2);
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let file = "drainSeconds: 7\nthreads: 3\nmanifests: [/, /tmp]\n";
    let settings = settle(&["--drain-seconds", "9"], file).unwrap();
    assert_eq!(settings.drain, Duration::from_secs(9));
    assert_eq!(settings.threads, 3);
    assert_eq!(settings.configuration, ConfigSource::Files(vec!["/".into(), "/tmp".into()]));
    assert_eq!(settings.http.unwrap().port(), 8411);
}

#[test]
fn a_variable_goes_before_the_file_unless_it_is_empty() {
    let mut flags = flags(&["-f", "/:/tmp", "--drain-seconds", "9"]);
    flags.threads = Some(String::new());
    let from = ["manifests", "drain_seconds", "threads"];
    let settings = settle_from(&flags, &from, "drainSeconds: 7\nthreads: 3\nmanifests: /var").unwrap();
    assert_eq!(settings.drain, Duration::from_secs(9));
    assert_eq!(settings.threads, 3);
    assert_eq!(settings.configuration, ConfigSource::Files(vec!["/".into(), "/tmp".into()]));
}

#[test]
fn what_tenants_may_connect_to_is_a_list_however_it_is_written() {
    let settings = |args: &[&str], file: &str| settle(&[&["-f", "/"], args].concat(), file).unwrap().limits;
    let wanted = Limits {
        allowed: vec!["10.1.0.0/16".parse().unwrap(), ":6443".parse().unwrap()],
        denied: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..Limits::default()
    };
    let one = ["--allow-destinations", "10.1.0.0/16,:6443", "--deny-destinations", "10.0.0.0/8, fd00::/8,"];
    assert_eq!(settings(&one, ""), wanted);
    let repeated = ["--allow-destinations=10.1.0.0/16", "--allow-destinations=:6443"];
    let file = "denyDestinations: [10.0.0.0/8, 'fd00::/8']\n";
    assert_eq!(settings(&repeated, file), wanted);
    let refusal = refusal(&["-f", "/", "--deny-destinations", "10.0.0.0/8,:80"], "");
    assert_eq!(
        refusal,
        "--deny-destinations: found `10.0.0.0/8,:80`, allowed: networks (10.0.0.0/8, fd00::/8) and addresses; IPv4 inside \
         IPv6 as IPv4"
    );
    // It would be every IPv4 address.
    assert!(self::refusal(&["-f", "/", "--allow-destinations", "64:ff9b::/96"], "").contains("as IPv4"));
}

#[test]
fn nobody_has_to_name_the_api_server_and_the_gateway_by_which_the_node_is_reached() {
    let of_a_pod = |api_server: &str| {
        let gateways = vec!["10.244.1.1".parse().unwrap()];
        let machine = Machine { api_server: Some(api_server.into()), gateways, ..machine() };
        let (flags, of) = (flags(&["-f", "/"]), FromEnvironment::default());
        Settings::settle(&flags, &of, &ConfigFile::default(), &machine).unwrap().limits
    };
    let limits = of_a_pod("10.96.0.1");
    assert_eq!(limits.own, ["10.244.1.1", "10.96.0.1"].map(|text| text.parse::<IpAddr>().unwrap()));
    assert_eq!(limits.denied_names, Vec::<String>::new());
    // A provider's: its certificate has no address.
    let limits = of_a_pod("api.cloud.test");
    assert_eq!((limits.own.len(), &*limits.denied_names), (1, &["api.cloud.test".to_owned()][..]));
}

#[test]
fn an_error_names_the_place_the_finding_and_what_is_allowed() {
    assert_eq!(
        refusal(&["-f", "/", "--http", "localhost"], ""),
        "--http: found `localhost`, allowed: an IP address and a port (127.0.0.1:8411, [::1]:8411), or `off`"
    );
    assert_eq!(
        refusal(&["-f", "/"], "# comment\nthreads: 65\n"),
        "agent.yaml:2:10: threads: found `65`, allowed: a whole number of threads, 1 to 64"
    );
    let error = settle_from(&flags(&["-f", "/", "--drain-seconds=-1s"]), &["drain_seconds"], "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable SPILLWAY_DRAIN_SECONDS: found `-1s`, allowed: a whole number of seconds, 0 to 3600"
    );
    assert_eq!(error.code(), "setting-value");
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_one() {
    for (found, nearest) in [("data-dir", "dataDir"), ("drainSecond", "drainSeconds"), ("htttp", "http")] {
        let error = refusal(&[], &format!("threads: 1\n{found}: x\n"));
        let start = format!("agent.yaml:2:{}: found unknown key `{found}`, did you mean `{nearest}`?", found.len() + 3);
        assert!(error.starts_with(&start), "{error}");
        assert!(error.ends_with("nodeName, threads"), "{error}");
    }
}

#[test]
fn a_file_of_another_shape_is_told_with_its_place() {
    for (file, line) in [("- a\n- b\n", 1), ("threads: 1\nthreads: 2\n", 2), ("http:\n  a: b\n", 2), ("a: [\n", 1)] {
        let error = settle(&["-f", "/"], file).unwrap_err();
        let SettingError::FileParse { line: found, .. } = &error else { panic!("{error}") };
        assert_eq!(*found, line, "{error}");
    }
}

#[test]
fn files_of_listeners_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, "x").unwrap();
        path.to_str().unwrap().to_string()
    };
    let (cert, key, token) = (path("cert"), path("key"), path("token"));
    let settings = settle(&["-f", "/", "--tls-cert", &cert, "--tls-key", &key, "--token-file", &token], "").unwrap();
    let tls = TlsFiles { certificate: Some(cert.into()), key: Some(key.into()) };
    assert_eq!(settings.security, SecurityFiles { tls, client_ca: None, token: Some(token.into()) });
    assert_eq!(
        refusal(&["-f", "/", "--tls-key", "/nowhere/key"], ""),
        "--tls-key: found `/nowhere/key`, allowed: a file that is there"
    );
}

#[test]
fn listeners_and_container_logs_can_be_off() {
    let settings = settle(&["-f", "/", "--http", "off", "--pod-logs", "off"], "admin: off").unwrap();
    assert_eq!((settings.http, settings.admin, settings.pod_logs), (None, None, None));
    assert_eq!(settings.metrics, None);
    let settings = settle(&["-f", "/", "--metrics", "0.0.0.0:8413"], "").unwrap();
    assert_eq!(settings.metrics.unwrap().to_string(), "0.0.0.0:8413");
}

#[test]
fn syslog_is_taken_where_an_address_says_so_and_nowhere_else() {
    let settings = settle(&["-f", "/"], "").unwrap();
    assert_eq!((settings.syslog, settings.security.client_ca), (SyslogListeners::default(), None));
    let flags = ["-f", "/", "--syslog-tcp", "127.0.0.1:601", "--syslog-tls=[::]:6514", "--tls-client-ca", "/etc/hosts"];
    let settings = settle(&flags, "syslogUDP: 127.0.0.1:514\n").unwrap();
    let [tcp, tls, udp] = ["127.0.0.1:601", "[::]:6514", "127.0.0.1:514"].map(|address| Some(address.parse().unwrap()));
    assert_eq!(settings.syslog, SyslogListeners { tcp, tls, udp });
    assert_eq!(settings.security.client_ca.as_deref(), Some(Path::new("/etc/hosts")));
    let settings = settle(&["-f", "/", "--syslog-udp", "off"], "syslogUDP: 127.0.0.1:514\n").unwrap();
    assert_eq!(settings.syslog.udp, None);
    for flag in ["--syslog-tcp", "--syslog-tls", "--syslog-udp"] {
        let refused = refusal(&["-f", "/", flag, "514"], "");
        assert!(refused.starts_with(&format!("{flag}: found `514`, allowed: an IP address and a port")), "{refused}");
    }
    assert!(refusal(&["-f", "/", "--tls-client-ca", "/nowhere"], "").contains("allowed: a file that is there"));
}

#[test]
fn lines_are_taken_where_an_address_or_a_file_says_so_and_nowhere_else() {
    let settings = settle(&["-f", "/"], "").unwrap();
    assert_eq!((settings.tcp, settings.unix), (None, None));
    let settings = settle(&["-f", "/", "--tcp", "127.0.0.1:8414"], "unix: /tmp/agent.sock\n").unwrap();
    assert_eq!(settings.tcp.unwrap().to_string(), "127.0.0.1:8414");
    assert_eq!(settings.unix.as_deref(), Some(Path::new("/tmp/agent.sock")));
    let settings = settle(&["-f", "/", "--tcp", "off", "--unix", "off"], "unix: agent.sock").unwrap();
    assert_eq!((settings.tcp, settings.unix), (None, None));
    let long = format!("/tmp/{}", "x".repeat(103));
    assert!(settle(&["-f", "/", "--unix", &long[..107]], "").is_ok());
    for bad in [&*long, "/nowhere/agent.sock", "", "/"] {
        let allowed = "allowed: a path of at most 107 bytes whose folder is there, or `off`";
        assert_eq!(refusal(&["-f", "/", "--unix", bad], ""), format!("--unix: found `{bad}`, {allowed}"));
    }
    assert!(refusal(&["-f", "/", "--tcp", "host:1"], "").starts_with("--tcp: found `host:1`, allowed: an IP address"));
}

#[test]
fn otlp_is_taken_by_itself_where_an_address_says_so() {
    let settings = settle(&["-f", "/"], "").unwrap();
    assert_eq!((settings.otlp_http, settings.otlp_grpc), (None, None));
    let settings = settle(&["-f", "/", "--otlp-grpc", "127.0.0.1:4317"], "otlpHTTP: '[::1]:4318'\n").unwrap();
    let addresses = [settings.otlp_grpc, settings.otlp_http].map(|address| address.unwrap().to_string());
    assert_eq!(addresses, ["127.0.0.1:4317", "[::1]:4318"]);
    assert_eq!(settle(&["-f", "/", "--otlp-grpc", "off"], "otlpGRPC: '127.0.0.1:1'").unwrap().otlp_grpc, None);
    assert!(
        refusal(&["-f", "/", "--otlp-grpc", "4317"], "")
            .starts_with("--otlp-grpc: found `4317`, allowed: an IP address")
    );
}

#[test]
fn paths_that_are_not_there_are_told() {
    for (flag, key) in [("-f", "--manifests"), ("--pod-logs", "--pod-logs"), ("--secrets-dir", "--secrets-dir")] {
        let error = refusal(&["-f", "/", flag, "/nowhere/at/all"], "");
        assert!(error.starts_with(&format!("{key}: found `/nowhere/at/all`")), "{error}");
    }
    assert!(refusal(&["-f", "/", "--data-dir", "/proc/self/exe"], "").starts_with("--data-dir: found"));
    assert!(refusal(&["-f", "/", "--secret-env", "A"], "").starts_with("--secret-env: found `A`, allowed: NAME/KEY"));
    let variables = settle(&["-f", "/", "--secret-env", "api/token=TOKEN"], "").unwrap().secrets.variables;
    assert_eq!(variables[0].variable, "TOKEN");
    assert_eq!(settle(&[], "").unwrap_err().code(), "no-manifests");
}

#[test]
fn every_flag_of_run_is_a_setting_with_its_variable() {
    let command = crate::cli::command();
    let run = command.find_subcommand("run").unwrap();
    let ids: Vec<&str> = run.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().filter(|id| !["config", "help"].contains(id)).collect();
    assert_eq!(ids, SETTINGS.map(|setting| setting.id));
    for (setting, arg) in SETTINGS.iter().zip(run.get_arguments().filter(|arg| arg.get_id() != "config")) {
        assert_eq!(arg.get_env().unwrap().to_str(), Some(setting.variable));
        assert_eq!(setting.variable, format!("SPILLWAY_{}", setting.id.to_uppercase()));
        assert_eq!(setting.flag, format!("--{}", setting.id.replace('_', "-")));
        assert_eq!(setting.key.to_lowercase(), setting.id.replace('_', ""));
    }
}

#[test]
fn an_operator_stands_in_place_of_manifests() {
    let settings = settle(&["--operator", "https://operator:8443", "--unknown-pods", "Deliver"], "").unwrap();
    let ConfigSource::Operator(operator) = settings.configuration else { panic!("{settings:?}") };
    assert_eq!(operator.url.as_str(), "https://operator:8443/v1/configuration");
    assert_eq!(operator.token, Path::new("/var/run/secrets/spillway/token"));
    assert_eq!((operator.ca, operator.state_key, settings.unknown_pods), (None, None, UnknownPods::Deliver));
    assert_eq!(
        refusal(&["--operator", "https://operator:8443"], "manifests: /"),
        "found manifests (agent.yaml:1:12: manifests) and an operator (--operator), allowed: one of the two"
    );
    assert_eq!(
        refusal(&["--operator", "http://operator:8443"], ""),
        "--operator: found `http://operator:8443`, allowed: https://HOST[:PORT], or http:// with an address of loopback"
    );
    assert!(refusal(&[], "").contains("--operator URL"));
}

#[test]
fn a_door_needs_an_operator_and_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| {
        let path = folder.path().join(name);
        std::fs::write(&path, "").unwrap();
        path.to_str().unwrap().to_owned()
    });
    let served = |more: &[&str]| settle(&[&["--operator", "https://operator:8443"], more].concat(), "");
    let door = |more: &[&str]| -> Result<Option<DoorSettings>, SettingError> {
        match served(more)?.configuration {
            ConfigSource::Operator(operator) => Ok(operator.door.map(|door| *door)),
            ConfigSource::Files(files) => panic!("{files:?}"),
        }
    };
    let files = ["--door-cert", &*certificate, "--door-key", &*key];
    let both = door(&[&["--door", "0.0.0.0:8411"], &files[..]].concat()).unwrap().unwrap();
    assert_eq!(both.address.to_string(), "0.0.0.0:8411");
    assert_eq!((both.tls.certificate, both.tls.key), (Some(certificate.clone().into()), Some(key.clone().into())));
    for off in [&["--door", "off"][..], &[], &files[..]] {
        assert_eq!(door(off).unwrap(), None, "{off:?}");
    }
    let allowed = "allowed: an IP address and a port, with --operator, --door-cert and --door-key, or `off`";
    for lacking in [&files[..2], &files[2..], &[]] {
        let error = door(&[&["--door", "0.0.0.0:8411"], lacking].concat()).unwrap_err().to_string();
        assert_eq!(error, format!("--door: found `0.0.0.0:8411`, {allowed}"), "{lacking:?}");
    }
    let error = door(&[&["--door", "etcher:8411"], &files[..]].concat()).unwrap_err().to_string();
    assert_eq!(error, format!("--door: found `etcher:8411`, {allowed}"));
    let standalone = [&["-f", "/", "--door", "0.0.0.0:8411"], &files[..]].concat();
    assert_eq!(refusal(&standalone, ""), format!("--door: found `0.0.0.0:8411`, {allowed}"));
    assert!(settle(&["-f", "/", "--door", "off"], "").is_ok());
    assert_eq!(
        refusal(&["-f", "/"], "door: 0.0.0.0:8411"),
        format!("agent.yaml:1:7: door: found `0.0.0.0:8411`, {allowed}")
    );
}
