//! The manual page that is about no command: metactl in cron, systemd, Nagios, Prometheus and Kubernetes. What it quotes
//! are the files in `examples/monitoring`, as the README does.

use clap_mangen::roff::{Roff, bold, roman};

/// Name of the page; it is in section 7.
pub const PAGE: &str = "metactl-monitoring";

/// A section: title, text, and the file that it is about.
struct Section {
    title: &'static str,
    text: &'static str,
    file: &'static str,
}

const SECTIONS: [Section; 8] = [
    Section {
        title: "CRON",
        text: "In /etc/cron.d; mails only if something is wrong.",
        file: include_str!("../../examples/monitoring/crontab"),
    },
    Section {
        title: "SYSTEMD: BEFORE ZOT STARTS",
        text: "A drop-in for zot's unit (systemctl edit zot). A walk that is not complete only means that zot walks itself.",
        file: include_str!("../../examples/monitoring/zot.service.conf"),
    },
    Section {
        title: "SYSTEMD: EVERY NIGHT",
        text: "metactl-verify.service:",
        file: include_str!("../../examples/monitoring/metactl-verify.service"),
    },
    Section {
        title: "SYSTEMD: TIMER",
        text: "metactl-verify.timer:",
        file: include_str!("../../examples/monitoring/metactl-verify.timer"),
    },
    Section {
        title: "NAGIOS AND ICINGA",
        text: "One status line with performance data, then details, under metactl's exit codes.",
        file: include_str!("../../examples/monitoring/nagios.cfg"),
    },
    Section {
        title: "PROMETHEUS",
        text: "Alerts on what --metrics-file leaves to node_exporter's textfile collector.",
        file: include_str!("../../examples/monitoring/prometheus-rules.yaml"),
    },
    Section {
        title: "KUBERNETES: BEFORE ZOT STARTS",
        text: "The init container's image has metactl and a shell. Both containers must run as the same user.",
        file: include_str!("../../examples/monitoring/kubernetes-init.yaml"),
    },
    Section {
        title: "KUBERNETES: EVERY NIGHT",
        text: "On the node that zot runs on, unless the volume can be mounted on several.",
        file: include_str!("../../examples/monitoring/kubernetes-cronjob.yaml"),
    },
];

/// The page.
pub fn page() -> String {
    let mut page = Roff::new();
    page.control("TH", [PAGE, "7"]).control("SH", ["NAME"]);
    page.text([roman(format!("{PAGE} - metactl in cron, systemd, Nagios, Prometheus and Kubernetes"))]);
    for section in &SECTIONS {
        page.control("SH", [section.title]).text([roman(section.text)]).control("PP", []).control("nf", []);
        for line in section.file.lines() {
            page.text([roman(line)]);
        }
        page.control("fi", []);
    }
    page.control("SH", ["SEE ALSO"]).text([bold("metactl-verify"), roman("(1), "), bold("metactl-walk"), roman("(1)")]);
    page.render()
}
