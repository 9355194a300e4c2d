//! nginx: a location for each path, a map for values of a header.

use std::fmt::Write as _;
use std::path::Path;

use crate::case::{By, Job, Setup, Wire};

/// What the file of one build of nginx may say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// Whether `http2 on` is known (1.25.1); otherwise it is a word of `listen`.
    pub(crate) modern: bool,
}

/// The configuration file's text.
pub(crate) fn text(job: Job, setup: Setup, dialect: Dialect, scratch: &Path) -> String {
    let head = format!(
        "worker_processes 1;\ndaemon off;\nuser root;\npid {scratch}/nginx.pid;\nerror_log /dev/null;\n\
         events {{ worker_connections 24000; }}\n",
        scratch = scratch.display()
    );
    if setup.front == Wire::Tcp {
        return format!("{head}stream {{ server {{ listen {}; proxy_pass {}; }} }}\n", job.listen, job.upstream);
    }
    let mut http = format!(
        "access_log off;\nkeepalive_requests 1000000000;\nclient_max_body_size 16m;\nmap_hash_max_size 65536;\n\
         map_hash_bucket_size 128;\nclient_body_temp_path {scratch}/body;\nproxy_temp_path {scratch}/proxy;\n\
         fastcgi_temp_path {scratch}/fcgi;\nuwsgi_temp_path {scratch}/uwsgi;\nscgi_temp_path {scratch}/scgi;\n",
        scratch = scratch.display()
    );
    // The formatting of a String cannot fail.
    for number in 0..setup.clusters {
        let _ = writeln!(
            http,
            "upstream b{number} {{ server {}; keepalive 256; keepalive_requests 1000000000; }}",
            job.upstream
        );
    }
    if setup.by == By::Header {
        http.push_str("map $http_x_tenant $chosen {\n");
        for number in 0..setup.routes {
            let _ = writeln!(http, "tenant-{number} b{};", number % setup.clusters);
        }
        http.push_str("}\n");
    }
    let (word, line) = match (setup.front.is_h2(), dialect.modern) {
        (true, true) => ("", "http2 on;\nhttp2_max_concurrent_streams 128;\n"),
        (true, false) => (" http2", "http2_max_concurrent_streams 128;\n"),
        (false, _) => ("", ""),
    };
    let mut server = format!("listen {}{word};\n{line}", job.listen);
    for number in 0..setup.routes {
        let place = match setup.by {
            By::Exact => format!("= {}", setup.path(number)),
            By::Prefix => setup.path(number),
            By::Header if number > 0 => continue,
            By::Nothing | By::Header => "/".to_owned(),
        };
        let upstream =
            if setup.by == By::Header { "$chosen".to_owned() } else { format!("b{}", number % setup.clusters) };
        let _ = writeln!(server, "location {place} {{ {} }}", pass(setup.back, &upstream));
    }
    format!("{head}http {{\n{http}server {{\n{server}}}\n}}\n")
}

fn pass(back: Wire, upstream: &str) -> String {
    match back {
        Wire::Grpc => format!("grpc_pass grpc://{upstream};"),
        Wire::Http2 => format!("proxy_pass http://{upstream}; proxy_http_version 2; proxy_request_buffering off;"),
        _ => format!(
            "proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_request_buffering off;"
        ),
    }
}
