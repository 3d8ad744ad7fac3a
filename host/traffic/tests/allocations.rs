//! Deciding where a request goes allocates nothing.
//!
//! A binary of its own, because it counts every allocation of the process.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::HeaderMap;
use mainstay_base::{Error, Result, SeededRandom, SystemClock};
use mainstay_inference::{InferAnswer, InferRequest, Parameter};
use mainstay_store::Store;
use mainstay_traffic::*;

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Ready;

#[async_trait]
impl Backend for Ready {
    fn identity(&self) -> Identity {
        Identity::default()
    }

    async fn infer(&self, _: &Arc<InferRequest>, _: &Ask) -> Result<InferAnswer, Failure> {
        Err(Error::unavailable("nobody asks").into())
    }

    async fn warm(&self, _: std::time::Instant) -> Result<()> {
        Ok(())
    }

    async fn ready(&self, _: std::time::Instant) -> Result<()> {
        Ok(())
    }
}

struct AllReady;

#[async_trait]
impl Backends for AllReady {
    async fn resolve(&self, _: &Reference) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Ready))
    }
}

const SPEC: &str = r#"
name = "e"
variants = [
    { name = "a", backend = "models:/a/1" },
    { name = "b", backend = "models:/b/1" },
    { name = "c", backend = "models:/c/1" },
]

[[plan.rules]]
when = [{ of = { header = "x-team" }, is = { exact = "red" } }, { of = { cookie = "beta" }, is = "present" }]
split = { shares = [{ variant = "c", percent = 100 }] }

[plan.split]
shares = [{ variant = "a", percent = 80 }, { variant = "b", percent = 15 }, { variant = "c", percent = 5 }]
key = { field = "user" }
"#;

#[tokio::test]
async fn routing_allocates_nothing() {
    let traffic = Traffic::open(Foundation {
        store: Store::in_memory(),
        clock: Arc::new(SystemClock::default()),
        random: Arc::new(SeededRandom::new(1)),
        backends: Arc::new(AllReady),
        watch: Arc::new(Unwatched),
    });
    let traffic = traffic.await.unwrap();
    traffic.apply(EndpointSpec::from_toml(SPEC).unwrap(), None, Reason::default()).await.unwrap();
    let pairs = [("x-team", "red"), ("cookie", "a=1; theta=2")];
    let headers = HeaderMap::from_iter(pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())));
    let requests: Vec<InferRequest> = (0..1_000)
        .map(|user| {
            let user = match user % 3 {
                0 => Some(Parameter::Int64(user)),
                1 => Some(Parameter::String(format!("user-{user}"))),
                _ => None,
            };
            let parameters = user.map(|user| ("user".to_owned(), user)).into_iter().collect();
            InferRequest { parameters, ..InferRequest::default() }
        })
        .collect();
    let caller = Caller::new(&headers);
    let mut placed = [0_u32; 3];
    let assign = |request| traffic.assign("e", caller, request).unwrap();
    // The first time on a thread, a pointer that is swapped takes a slot of its own.
    assign(&requests[0]);
    let before = COUNT.load(Ordering::SeqCst);
    for request in &requests {
        let variant = assign(request).variant;
        placed[usize::from(variant.as_bytes()[0] - b'a')] += 1;
    }
    let allocated = COUNT.load(Ordering::SeqCst) - before;
    assert_eq!(allocated, 0, "for {} requests", requests.len());
    assert!(placed.iter().all(|count| *count > 10), "{placed:?}");
}
