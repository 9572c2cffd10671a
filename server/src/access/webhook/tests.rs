//! One principal after the other, and an application that is slow for some of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::asking::{MOST_ASKED, MOST_ASKED_OF_ONE, MOST_WAITING_OF_ONE, TIMEOUT};
use super::*;

/// What an answer may take on a busy machine, of an application that is not slow.
const SOON: Duration = Duration::from_secs(1);

/// Longer than any test.
const LONG: Duration = Duration::from_mins(10);

/// An application in which everybody is an owner. Of whoever it does not like it says nothing.
#[derive(Debug, Default)]
struct There {
    asked: AtomicUsize,
    likes_all: AtomicBool,
    likes_none: AtomicBool,
}

/// Whom it does not like.
const MAL: &str = "mal";

async fn answer(State(there): State<Arc<There>>, body: String) -> axum::Json<Json> {
    there.asked.fetch_add(1, Ordering::Relaxed);
    let asked: Json = serde_json::from_str(&body).expect("JSON");
    let is_liked = asked["principal"] != MAL || there.likes_all.load(Ordering::Relaxed);
    if !is_liked || there.likes_none.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    axum::Json(json!({ "role": "owner" }))
}

async fn webhook(holds: Duration) -> (Arc<There>, Webhook) {
    let there = Arc::new(There::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let routes = Router::new().route("/", post(answer));
    let routes = routes.with_state(Arc::clone(&there));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (there, Webhook::new(&url, None, holds).expect("an address"))
}

fn who(name: &str) -> Identity {
    crate::access::identity::who(name, &[])
}

fn id(n: usize) -> DocumentId {
    DocumentId::new(&format!("d{n}")).expect("an id")
}

async fn decide(webhook: &Webhook, name: &str, n: usize) -> Arc<Decision> {
    webhook.decide(&who(name), &id(n), || ()).await
}

async fn decide_all(webhook: &Webhook, name: &str, number: usize) -> Vec<Arc<Decision>> {
    join_all((0..number).map(|n| decide(webhook, name, n))).await
}

fn alive(webhook: &Webhook) -> usize {
    let known = webhook.0.lock();
    let decisions = known.of.values();
    decisions.filter(|one| one.strong_count() > 0).count()
}

#[tokio::test]
async fn a_role_ends_by_time_while_the_application_hangs() {
    let holds = Duration::from_secs(1);
    let (there, webhook) = webhook(holds).await;
    let changes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&changes);
    let changed = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let bob = webhook.decide(&who("bob"), &id(0), changed).await;
    assert_eq!((bob.role(), bob.is_answered()), (Role::Owner, true));
    there.likes_none.store(true, Ordering::Relaxed);
    // More than are asked at a time, of many.
    let names: Vec<_> = (0..MOST_ASKED).map(|n| format!("p{n}")).collect();
    let others = names.iter().map(|name| decide_all(&webhook, name, 2));
    let asked = Instant::now();
    tokio::select! {
        _ = join_all(others) => panic!("they were answered"),
        () = sleep(holds + holds / 4) => {}
    }
    assert_eq!((bob.role(), bob.is_answered()), (Role::None, false));
    assert_eq!(changes.load(Ordering::Relaxed), 1, "who waits was told");
    // And nobody waits for longer than they are to.
    let late = decide(&webhook, "late", 0).await;
    assert!(!late.is_answered());
    assert!(asked.elapsed() < holds + holds / 4 + TIMEOUT + SOON);
}

#[tokio::test]
async fn what_is_held_is_asked_about_ahead_of_time() {
    let holds = Duration::from_secs(1);
    let (there, webhook) = webhook(holds).await;
    let bob = decide(&webhook, "bob", 0).await;
    for _ in 0..25 {
        assert_eq!(bob.role(), Role::Owner);
        // Whoever finds it has what holds for a while.
        assert!(Arc::ptr_eq(&bob, &decide(&webhook, "bob", 0).await));
        sleep(holds / 10).await;
    }
    let asked = there.asked.load(Ordering::Relaxed);
    assert!((3..=6).contains(&asked), "{asked}");
}

#[tokio::test]
async fn questions_about_one_principal_are_in_nobody_elses_way() {
    let holds = Duration::from_secs(2);
    let (_there, webhook) = webhook(holds).await;
    let bob = decide(&webhook, "bob", 0).await;
    let many = 10 * MOST_ASKED;
    let mal = tokio::spawn({
        let webhook = webhook.clone();
        // Held, and asked again and again.
        async move {
            let held = decide_all(&webhook, MAL, many).await;
            sleep(LONG).await;
            drop(held);
        }
    });
    let started = Instant::now();
    let mut n = 1;
    while started.elapsed() < 2 * TIMEOUT {
        let carl = timeout(SOON, decide(&webhook, "carl", n)).await;
        assert_eq!(carl.map(|carl| carl.role()), Ok(Role::Owner));
        assert_eq!(bob.role(), Role::Owner, "after {:?}", started.elapsed());
        n += 1;
        sleep(Duration::from_millis(20)).await;
    }
    mal.abort();
}

#[tokio::test]
async fn who_has_too_many_questions_is_told_at_once() {
    let (there, webhook) = webhook(LONG).await;
    let own = MOST_ASKED_OF_ONE + MOST_WAITING_OF_ONE;
    let first = tokio::spawn({
        let webhook = webhook.clone();
        async move { decide_all(&webhook, MAL, own).await }
    });
    while there.asked.load(Ordering::Relaxed) < MOST_ASKED_OF_ONE {
        sleep(Duration::from_millis(5)).await;
    }
    let more = timeout(SOON, decide(&webhook, MAL, own + 1)).await;
    assert!(more.is_ok_and(|more| !more.is_answered()));
    assert_eq!(there.asked.load(Ordering::Relaxed), MOST_ASKED_OF_ONE);
    let first = first.await.expect("ran");
    assert!(first.iter().all(|one| !one.is_answered()));
}

#[tokio::test]
async fn of_what_nobody_holds_so_much_is_kept_of_each_and_not_for_longer_than_it_is_of_use() {
    let holds = Duration::from_secs(12);
    let (there, webhook) = webhook(holds).await;
    there.likes_all.store(true, Ordering::Relaxed);
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let started = Instant::now();
    let mut n = 0;
    while n < MOST_KEPT_OF_ONE + 200 {
        decide(&webhook, MAL, n).await;
        n += 1;
    }
    assert_eq!(alive(&webhook), MOST_KEPT_OF_ONE);
    // One each, and those of the connections to the application.
    assert!(tasks() < MOST_KEPT_OF_ONE + 100, "{}", tasks());
    // What is kept is not asked for again.
    decide(&webhook, MAL, MOST_KEPT_OF_ONE - 1).await;
    assert_eq!(there.asked.load(Ordering::Relaxed), n);
    decide(&webhook, "bob", 0).await;
    assert_eq!(alive(&webhook), MOST_KEPT_OF_ONE + 1);
    assert!(started.elapsed() < holds / 2, "the machine is too slow");
    sleep(holds / 2 + SOON).await;
    assert_eq!(alive(&webhook), 0);
    assert!(tasks() < 100, "{}", tasks());
    assert_eq!(
        there.asked.load(Ordering::Relaxed),
        n + 1,
        "nobody wants to know"
    );
}

#[tokio::test]
async fn decisions_that_are_gone_are_forgotten() {
    let (_there, webhook) = webhook(LONG).await;
    for n in 0..5 * LEAST_BETWEEN_PRUNING {
        // Nobody waits for it.
        webhook.0.decision(&Question {
            principal: who("bob").principal,
            groups: Arc::default(),
            document: id(n),
        });
    }
    assert!(webhook.0.lock().of.len() <= LEAST_BETWEEN_PRUNING);
}
