//! Many streams at once: `many_streams [STREAMS] [EVENTS]`.
//!
//! A server in a process of its own sends each stream an event, waits until all have begun, and sends the rest; the client holds
//! all of them open, reads one event after the other of each, and prints what memory it took at each step. One connection a
//! stream, so the limit of open files has to allow as many (`ulimit -n`).

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use mainstay_inference::{InferRequest, Tensor};
use mainstay_traffic::{Ask, Backend};
use mainstay_upstreams::{UpstreamOptions, Upstreams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Memory of this process, in MiB.
fn rss_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("a system with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for it");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// Sends each connection an event every so often.
async fn serve(mut stream: TcpStream, events: usize) -> std::io::Result<()> {
    let mut asked = Vec::new();
    let mut buffer = [0; 4096];
    while !asked.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&buffer[..read]);
    }
    if asked.starts_with(b"GET") {
        return stream.write_all(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    for number in 0..events {
        let event =
            format!("data: {{\"model_name\":\"m\",\"model_version\":\"1\",\"text_output\":\"word {number}\"}}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    // Until the client closes.
    stream.read(&mut buffer).await.map(drop)
}

async fn server(events: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, events));
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, otherwise| arguments.get(place).map_or(otherwise, |text| text.parse().expect("a number"));
    if arguments.first().is_some_and(|first| first == "serve") {
        return server(number(1, 0)).await;
    }
    let (streams, events) = (number(0, 10_000_usize), number(1, 100_usize));
    let program = std::env::current_exe().expect("this program");
    let mut process = Command::new(program)
        .args(["serve", &events.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut address = String::new();
    BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut address).expect("an address");
    let options = UpstreamOptions { connections_max: streams, ..UpstreamOptions::default() };
    let url = format!("http://{}/v2/models/m", address.trim());
    let upstream = Upstreams::default().open(&url, &options).expect("an upstream");
    println!("before: {:.1} MiB", rss_mib());
    let began = Instant::now();
    let input = Tensor::bytes("text_input", &[1], ["tell me"]).expect("a tensor");
    let request = Arc::new(InferRequest { inputs: vec![input], ..InferRequest::default() });
    let ask = Ask { deadline: Instant::now() + Duration::from_secs(300), trace: None, tenant: None, attempt: 0 };
    let mut open = Vec::with_capacity(streams);
    for _ in 0..streams {
        open.push(upstream.stream(&request, &ask).await.expect("a stream"));
    }
    println!("{streams} streams open after {:.1} s: {:.1} MiB", began.elapsed().as_secs_f64(), rss_mib());
    let mut parts = 0_usize;
    for round in 0..events {
        for stream in &mut open {
            stream.next().await.expect("a part").expect("an answer");
            parts += 1;
        }
        if (round + 1) % (events / 4).max(1) == 0 {
            println!("{parts} parts after {:.1} s: {:.1} MiB", began.elapsed().as_secs_f64(), rss_mib());
        }
    }
    println!("{:?}", upstream.statistics());
    drop(open);
    println!("streams dropped: {:.1} MiB", rss_mib());
    process.kill().expect("the server runs");
    process.wait().expect("the server ends");
}
