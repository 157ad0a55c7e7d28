//! What the README and the manual recommend for cron, systemd, Nagios, Prometheus and Kubernetes does what it says: the
//! commands are run as they stand, against the example store, with nothing but the places of files exchanged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::verify::{Id, Severity};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::command::BUILD;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn example(name: &str) -> String {
    std::fs::read_to_string(repository().join("examples/monitoring").join(name)).unwrap()
}

/// A host with the example store, where the recommended paths lead into a temporary directory.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// Walked and stamped.
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        for path in ["bin", "etc/zot", "var/lib/node_exporter/textfile", "var/lib/metactl"] {
            std::fs::create_dir_all(host.path(path)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_metactl"), host.path("bin/metactl")).unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(repository().join("examples/registry")).arg(host.registry());
        assert!(copy.status().unwrap().success());
        let config = std::fs::read_to_string(repository().join("examples/zot-bolt.json")).unwrap();
        assert!(config.contains("/var/lib/registry"));
        std::fs::write(host.path("etc/zot/config.json"), host.mapped(&config)).unwrap();
        assert_eq!(host.run("metactl walk").status.code(), Some(0));
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn registry(&self) -> PathBuf {
        self.path("var/lib/registry")
    }

    /// The same text for this host. Nobody runs zot here, so the build that it would tell comes from the environment.
    fn mapped(&self, text: &str) -> String {
        let root = self.dir.path().to_str().unwrap();
        ["/etc/zot", "/var/lib/registry", "/var/lib/node_exporter", "/var/lib/metactl"]
            .iter()
            .fold(text.to_owned(), |text, path| text.replace(path, &format!("{root}{path}")))
            .replace("/usr/bin/metactl", &format!("{root}/bin/metactl"))
            .replace("--zot-binary /usr/bin/zot", "")
            .replace("METACTL_ZOT_BINARY=/usr/bin/zot", "")
            .replace("--zot-url http://zot:5000", "")
    }

    /// Run a line of shell.
    fn run(&self, line: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", &self.mapped(line)]).env_clear().current_dir(&self.dir);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("METACTL_CONFIG", self.path("etc/zot/config.json")).env("HOME", self.dir.path());
        command.env("METACTL_RELEASE_TAG", BUILD[1]).env("METACTL_COMMIT", BUILD[3]);
        command.output().unwrap()
    }

    fn clear_stamp(&self) {
        assert_eq!(self.run("metactl stamp clear").status.code(), Some(0));
    }

    fn lose_a_tag(&self) {
        let index = self.registry().join("tools/index.json");
        std::fs::write(index, br#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn readme_and_manual_quote_the_example_files() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let manual = std::fs::read_to_string(repository().join("man/metactl-monitoring.7")).unwrap().replace("\\", "");
    for entry in std::fs::read_dir(repository().join("examples/monitoring")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(readme.contains(&format!("\n{text}```\n")), "README.md lacks {}", path.display());
        for line in text.lines() {
            let line = line.replace('\\', "");
            assert!(manual.contains(&line) || manual.contains(&line.replace('\'', "*(Aq")), "manual lacks {line}");
        }
    }
}

#[test]
fn readme_knows_every_finding_and_its_severity() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    for severity in Severity::ALL {
        let row = readme.lines().find_map(|line| line.strip_prefix(&format!("| {} | ", severity.word()))).unwrap();
        let told: BTreeSet<&str> = row.split('`').skip(1).step_by(2).collect();
        let ids = Id::ALL.iter().filter(|id| id.severity() == severity).map(|id| id.text());
        assert_eq!(told, ids.collect(), "{}", severity.word());
    }
}

/// Commands of a system crontab, as cron runs them: after five fields and a user, with `\%` for a percent sign.
fn cron_commands() -> Vec<String> {
    let lines = example("crontab");
    let entries = lines.lines().filter(|line| !line.starts_with('#'));
    let command = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let time = |field: &&str| field.chars().all(|c| c.is_ascii_digit() || c == '*');
        assert!(fields[..5].iter().all(time) && fields[5] == "zot", "{line}");
        let command = line.split_once("zot  ").unwrap().1;
        // Cron ends the command at a percent sign that is not escaped.
        assert_eq!(command.matches('%').count(), command.matches("\\%").count(), "{line}");
        command.replace("\\%", "%")
    };
    entries.map(command).collect()
}

#[test]
fn cron_mails_only_if_something_is_wrong() {
    let commands = cron_commands();
    assert_eq!(commands.len(), 2);
    let host = Host::new();
    for command in &commands {
        let output = host.run(command);
        assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()), "{command}");
    }
    host.clear_stamp();
    assert!(said(&host.run(&commands[0])).contains("walk"), "{:?}", host.run(&commands[0]));
    host.lose_a_tag();
    assert!(said(&host.run(&commands[1])).contains("tag-extra"), "{:?}", host.run(&commands[1]));
}

/// A setting of a unit file.
fn setting<'u>(unit: &'u str, key: &str) -> &'u str {
    unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap()
}

#[test]
fn systemd_walks_before_zot_and_verifies_at_night() {
    let host = Host::new();
    host.clear_stamp();
    let walk = example("zot.service.conf");
    let (ignored, walk) = setting(&walk, "ExecStartPre").split_at(1);
    assert_eq!(ignored, "-", "a walk that fails does not keep zot from starting");
    let output = host.run(walk);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(host.run("metactl stamp show --check").status.code(), Some(0));

    let unit = example("metactl-verify.service");
    let command = setting(&unit, "ExecStart").replace("%%", "%");
    let command = format!("{} {command}", setting(&unit, "Environment"));
    let output = host.run(&command);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(host.path("var/lib/metactl/state.redb").exists());
    let metrics = std::fs::read_to_string(host.path("var/lib/node_exporter/textfile/metactl.prom")).unwrap();
    assert!(metrics.contains("metactl_verify_status 0"), "{metrics}");
    // What the unit may write is where the command writes, and drift is a success to systemd.
    assert!(command.contains(setting(&unit, "ReadWritePaths")));
    assert!(command.contains(&format!("/var/lib/{}/", setting(&unit, "StateDirectory"))));
    host.clear_stamp();
    host.lose_a_tag();
    assert_eq!(host.run(&command).status.code(), Some(setting(&unit, "SuccessExitStatus").parse().unwrap()));
}

#[test]
#[ignore = "needs systemd: run tests/run"]
fn systemd_finds_nothing_wrong_with_the_units() {
    let host = Host::new();
    let check = |change: fn(String) -> String| {
        for name in ["metactl-verify.service", "metactl-verify.timer"] {
            std::fs::write(host.path(name), change(host.mapped(&example(name)))).unwrap();
        }
        // A drop-in for zot's own unit.
        let zot = format!("{}\n[Unit]\nDescription=zot\n[Service]\nExecStart=/bin/true\n", example("zot.service.conf"));
        std::fs::write(host.path("zot.service"), change(host.mapped(&zot))).unwrap();
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["verify", "--man=no"]).current_dir(&host.dir);
        let output = analyze.args(["./metactl-verify.service", "./metactl-verify.timer", "./zot.service"]).output();
        said(&output.unwrap())
    };
    assert_eq!(check(|text| text), "");
    assert!(check(|text| text.replace("OnCalendar=", "OnCalender=")).contains("OnCalender"));
}

#[test]
fn nagios_gets_a_status_line_with_performance_data() {
    let host = Host::new();
    let definition = example("nagios.cfg");
    let command = definition.lines().find_map(|line| line.trim().strip_prefix("command_line ")).unwrap();
    let status = |code, word: &str| {
        let output = host.run(command);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (line, details) = text.split_once('\n').unwrap();
        assert!(line.starts_with(&format!("VERIFY {word} - ")), "{line}");
        let (_, data) = line.split_once(" | ").unwrap();
        assert!(data.split(' ').all(|item| item.contains('=')), "{line}");
        assert!(!details.contains('|'), "{details}");
    };
    status(0, "OK");
    host.clear_stamp();
    status(1, "WARNING");
    host.lose_a_tag();
    status(1, "WARNING");
}

#[test]
fn alerts_rest_on_metrics_that_there_are() {
    let host = Host::new();
    let metrics = String::from_utf8(host.run("metactl verify --format prometheus").stdout).unwrap();
    let known: BTreeSet<&str> = metrics.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let rules = example("prometheus-rules.yaml");
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let used: BTreeSet<&str> = rules.split(word).filter(|word| word.starts_with("metactl_")).collect();
    assert!(used.len() == 3 && used.is_subset(&known), "{used:?} {known:?}");
    for label in rules.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()) {
        assert!(metrics.contains(label), "{label}");
    }
}

/// Prometheus' own checker, from whatever place it was installed to.
fn promtool() -> Command {
    let installed = repository().join("target/promtool");
    Command::new(if installed.exists() { installed } else { "promtool".into() })
}

#[test]
#[ignore = "needs promtool: run tests/run"]
fn promtool_finds_nothing_wrong_with_any_metrics() {
    let host = Host::new();
    let check = |metrics: &str| {
        std::fs::write(host.path("metrics"), metrics).unwrap();
        let mut check = promtool();
        check.args(["check", "metrics"]).stdin(std::fs::File::open(host.path("metrics")).unwrap());
        let output = check.output().unwrap();
        (output.status.success(), said(&output))
    };
    for command in ["stamp show --format prometheus", "verify --format prometheus", "walk --force --metrics-file m -qq"]
    {
        let output = host.run(&format!("metactl {command}"));
        let metrics = match std::fs::read_to_string(host.path("m")) {
            Ok(metrics) => metrics,
            Err(_) => String::from_utf8(output.stdout).unwrap(),
        };
        assert!(metrics.contains("metactl_last_success_timestamp_seconds"), "{command}: {metrics}");
        assert_eq!(check(&metrics), (true, String::new()), "{command}");
        // It would say so.
        assert!(!check(&metrics.replace("# HELP ", "# ")).1.is_empty(), "{command}");
    }
}

/// What Prometheus makes of the rules: something is wrong after five hours, the stamp is lost after ten, and nobody verifies.
#[test]
#[ignore = "needs promtool: run tests/run"]
fn alerts_fire_when_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let promtool = |arguments: &[&str]| promtool().args(arguments).current_dir(dir.path()).output().unwrap();
    std::fs::write(dir.path().join("rules.yaml"), example("prometheus-rules.yaml")).unwrap();
    let series = |name: &str, values: &str| json!({"series": name, "values": values});
    let alert = |name: &str, at: &str, fires: bool, labels: Value| {
        let firing = if fires { json!([{"exp_labels": labels}]) } else { json!([]) };
        json!({"alertname": name, "eval_time": at, "exp_alerts": firing})
    };
    let verified = "metactl_last_success_timestamp_seconds{command=\"verify\"}";
    let none = || json!({});
    let test = json!({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [
        {"interval": "1m", "input_series": [
            series("metactl_verify_findings{id=\"tag-extra\",severity=\"warning\"}", "0+1x3000"),
            series("metactl_verify_findings{id=\"repo-hidden\",severity=\"critical\"}", "0x300 1x2700"),
            series("metactl_stamp_usable", "1x600 0x2400"),
            series(verified, "0x3000"),
         ], "alert_rule_test": [
            alert("ZotMetaDbWrong", "4h", false, none()),
            alert("ZotMetaDbWrong", "6h", true, none()),
            alert("ZotNextStartWillBeSlow", "10h30m", false, none()),
            alert("ZotNextStartWillBeSlow", "12h", true, none()),
            alert("ZotMetaDbNotVerified", "47h", false, none()),
            alert("ZotMetaDbNotVerified", "49h", true, json!({"command": "verify"})),
         ]},
        {"interval": "1m", "input_series": [], "alert_rule_test": [
            alert("ZotMetaDbNotVerified", "1m", true, json!({"command": "verify"})),
            alert("ZotMetaDbWrong", "1m", false, none()),
         ]},
    ]});
    std::fs::write(dir.path().join("test.yaml"), test.to_string()).unwrap();
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "test.yaml"]] {
        let output = promtool(&arguments);
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// A YAML file as JSON, by the Python that `tests/run` installs.
fn yaml(text: &str) -> Value {
    let mut python = Command::new(python("python"));
    python.args(["-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.argv[1]), sys.stdout)", text]);
    let output = python.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
}

fn python(program: &str) -> PathBuf {
    repository().join("target/services/venv/bin").join(program)
}

/// Run a container's command as a Kubernetes node would, but on this host.
fn run_container(host: &Host, container: &Value) -> Output {
    let words = [&container["command"], &container["args"]].into_iter().flat_map(|list| list.as_array().unwrap());
    let quoted = |word: &Value| format!("'{}'", word.as_str().unwrap().replace('\'', "'\\''"));
    let line: Vec<String> = words.map(quoted).collect();
    host.run(&line.join(" ").replace("'--zot-url' 'http://zot:5000'", ""))
}

/// Every path that the container uses lies on a volume that the pod has, and that it may write if it must.
fn check_mounts(pod: &Value, container: &Value, writes: bool) {
    let volumes: BTreeSet<&str> =
        pod["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| volumes.contains(mount["name"].as_str().unwrap())), "{container}");
    let mount_of = |path: &str| {
        mounts.iter().find(|mount| Path::new(path).starts_with(mount["mountPath"].as_str().unwrap())).unwrap()
    };
    let config = container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let config = config.skip_while(|word| *word != "--config" && *word != "serve").nth(1).unwrap();
    assert_eq!(mount_of(config)["name"], "config");
    let example = std::fs::read_to_string(repository().join("examples/zot-bolt.json")).unwrap();
    let example: Value = serde_json::from_str(&example).unwrap();
    let registry = mount_of(example["storage"]["rootDirectory"].as_str().unwrap());
    assert_eq!(registry["readOnly"] == true, !writes, "{registry}");
}

fn validate(manifest: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifest.yaml");
    std::fs::write(&file, manifest).unwrap();
    let output = Command::new(python("kubernetes-validate")).args(["--strict", "--quiet"]).arg(file).output().unwrap();
    if output.status.success() { String::new() } else { said(&output) }
}

#[test]
#[ignore = "needs kubernetes-validate: run tests/run"]
fn kubernetes_walks_before_zot_starts() {
    let text = example("kubernetes-init.yaml");
    let pod = format!("apiVersion: v1\nkind: Pod\nmetadata: {{ name: zot }}\n{text}");
    assert_eq!(validate(&pod), "");
    assert!(validate(&pod.replace("initContainers", "initContainer")).contains("initContainer"));
    let spec = &yaml(&text)["spec"];
    let init = &spec["initContainers"][0];
    check_mounts(spec, init, true);
    check_mounts(spec, &spec["containers"][0], true);

    let host = Host::new();
    host.clear_stamp();
    let output = run_container(&host, init);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // The build that it names is that of the container beside it.
    let stamp = String::from_utf8(host.run("metactl stamp show --format json").stdout).unwrap();
    assert!(stamp.contains("v2.1.20-3b5796d834e8661ea661a5fcc47add8d4405aebf"), "{stamp}");
    assert!(spec["containers"][0]["image"].as_str().unwrap().ends_with(":v2.1.20"));
    // Whatever happens, zot starts.
    std::fs::write(host.registry().join("tools/index.json"), b"{").unwrap();
    assert_eq!(host.run("metactl walk --force").status.code(), Some(1));
    assert_eq!(run_container(&host, init).status.code(), Some(0));
}

#[test]
#[ignore = "needs kubernetes-validate: run tests/run"]
fn kubernetes_verifies_every_night() {
    let text = example("kubernetes-cronjob.yaml");
    assert_eq!(validate(&text), "");
    assert!(validate(&text.replace("concurrencyPolicy", "concurrentPolicy")).contains("concurrentPolicy"));
    let job = yaml(&text);
    let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    check_mounts(pod, container, false);
    assert_eq!(job["spec"]["jobTemplate"]["spec"]["backoffLimit"], 0);
    let time = job["spec"]["schedule"].as_str().unwrap();
    assert!(time.split(' ').count() == 5 && example("crontab").contains(time));

    let host = Host::new();
    let run = |code| {
        let output = run_container(&host, container);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(run(0)["result"], "consistent");
    host.lose_a_tag();
    // Under a current stamp, drift is critical.
    assert_eq!(run(2)["counts"]["tag-extra"], 1);
}
