//! The bulkhead: its rules one by one, tasks that come and go, and random sequences against a model.

use super::*;
use proptest::prelude::*;

fn room(concurrency: u32, queue: u32, tenant_concurrency: u32) -> Room {
    Room { concurrency, queue, tenant_concurrency, tenant_queue: u32::MAX }
}

fn names() -> [Arc<str>; 3] {
    ["a".into(), "b".into(), "c".into()]
}

/// Everybody who is let in, one after the other.
fn drain(core: &mut Core) -> Vec<(u64, Arc<str>)> {
    std::iter::from_fn(|| core.next()).collect()
}

#[test]
fn limits_hold_at_n_and_not_at_n_plus_one() {
    let (mut core, [a, ..]) = (Core::default(), names());
    let room = room(2, 1, u32::MAX);
    assert_eq!([core.enter(&a, room), core.enter(&a, room)], [Entered::Now; 2]);
    assert_eq!(core.enter(&a, room), Entered::Waits(0));
    assert_eq!(core.enter(&a, room), Entered::Full);
    core.leave(&a);
    assert_eq!(drain(&mut core), [(0, a.clone())]);
}

#[test]
fn a_tenants_own_queue_is_bounded_too() {
    let (mut core, [a, b, _]) = (Core::default(), names());
    let room = Room { concurrency: 1, queue: 10, tenant_concurrency: 1, tenant_queue: 1 };
    assert_eq!(core.enter(&a, room), Entered::Now);
    assert_eq!(core.enter(&a, room), Entered::Waits(0));
    assert_eq!(core.enter(&a, room), Entered::Full);
    assert_eq!(core.enter(&b, room), Entered::Waits(1));
}

#[test]
fn tenants_go_by_turns_and_within_a_tenant_the_first_goes_first() {
    let (mut core, [a, b, c]) = (Core::default(), names());
    let room = room(1, 100, u32::MAX);
    core.enter(&a, room);
    for tenant in [&a, &a, &a, &b, &b, &c] {
        core.enter(tenant, room);
    }
    let mut order = Vec::new();
    let mut last = a.clone();
    while core.waiting > 0 {
        core.leave(&last);
        let (ticket, tenant) = core.next().expect("there is room");
        last = tenant.clone();
        order.push((ticket, tenant));
    }
    let expect = [(0, &a), (3, &b), (5, &c), (1, &a), (4, &b), (2, &a)];
    assert_eq!(order, expect.map(|(ticket, tenant)| (ticket, tenant.clone())));
}

#[test]
fn a_tenant_at_its_limit_does_not_keep_others_waiting() {
    let (mut core, [a, b, _]) = (Core::default(), names());
    let room = room(10, 100, 2);
    assert_eq!([core.enter(&a, room), core.enter(&a, room)], [Entered::Now; 2]);
    assert!(matches!(core.enter(&a, room), Entered::Waits(_)));
    assert_eq!(core.enter(&b, room), Entered::Now);
}

#[test]
fn a_tenant_that_has_left_takes_no_memory() {
    let (mut core, [a, ..]) = (Core::default(), names());
    core.enter(&a, room(1, 0, 1));
    assert_eq!(core.enter(&a, room(1, 0, 1)), Entered::Full);
    core.leave(&a);
    assert!(core.tenants.is_empty() && core.turns.is_empty());
    assert_eq!(core.enter(&a, room(0, 0, 1)), Entered::Full);
    assert!(core.tenants.is_empty());
}

#[tokio::test]
async fn a_slot_that_is_dropped_wakes_who_waits() {
    let (bulkhead, [a, ..]) = (Bulkhead::default(), names());
    let room = room(1, 10, 10);
    let Entry::Slot(slot) = bulkhead.enter(&a, room) else { panic!("there is room") };
    let Entry::Waiting(waiting) = bulkhead.enter(&a, room) else { panic!("it should wait") };
    let task = tokio::spawn(waiting.slot());
    drop(slot);
    let slot = task.await.unwrap().expect("its turn");
    assert_eq!(bulkhead.load(), Load { active: 1, waiting: 0 });
    drop(slot);
    assert_eq!(bulkhead.load(), Load::default());
}

#[tokio::test]
async fn who_gives_up_leaves_no_slot_behind() {
    let (bulkhead, [a, ..]) = (Bulkhead::default(), names());
    let room = room(1, 10, 10);
    let Entry::Slot(slot) = bulkhead.enter(&a, room) else { panic!("there is room") };
    let Entry::Waiting(gone) = bulkhead.enter(&a, room) else { panic!("it should wait") };
    let Entry::Waiting(granted) = bulkhead.enter(&a, room) else { panic!("it should wait") };
    let Entry::Waiting(last) = bulkhead.enter(&a, room) else { panic!("it should wait") };
    drop(gone);
    assert_eq!(bulkhead.load(), Load { active: 1, waiting: 2 });
    // Its slot is on its way when it goes.
    drop(slot);
    assert_eq!(bulkhead.load(), Load { active: 1, waiting: 1 });
    drop(granted);
    assert!(last.slot().await.is_some());
    assert_eq!(bulkhead.load(), Load::default());
}

#[derive(Clone, Debug)]
enum Step {
    Enter(usize),
    Leave(usize),
    GiveUp(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_usize..3).prop_map(Step::Enter),
        2 => (0_usize..20).prop_map(Step::Leave),
        1 => (0_usize..20).prop_map(Step::GiveUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..Default::default() })]

    /// No limit is ever passed, nobody waits while there is room, and within a tenant the order holds.
    #[test]
    fn random_sequences_keep_every_promise(
        steps in prop::collection::vec(step(), 1..120), concurrency in 1_u32..5, own in 1_u32..4, queue in 0_u32..6,
    ) {
        let room = Room { concurrency, queue, tenant_concurrency: own, tenant_queue: u32::MAX };
        let (mut core, names) = (Core::default(), names());
        let (mut active, mut waiting): (Vec<usize>, Vec<(u64, usize)>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Enter(who) => {
                    let was_full = waiting.len() as u32 >= queue;
                    match core.enter(&names[who], room) {
                        Entered::Now => active.push(who),
                        Entered::Waits(ticket) => waiting.push((ticket, who)),
                        Entered::Full => prop_assert!(was_full),
                    }
                }
                Step::Leave(which) if which < active.len() => core.leave(&names[active.remove(which)]),
                Step::GiveUp(which) if which < waiting.len() => {
                    let (ticket, who) = waiting.remove(which);
                    core.give_up(&names[who], ticket);
                },
                _ => {}
            }
            for (ticket, tenant) in drain(&mut core) {
                let place = waiting.iter().position(|(waits, _)| *waits == ticket).expect("it waited");
                let (_, who) = waiting.remove(place);
                prop_assert_eq!(&names[who], &tenant);
                prop_assert!(waiting.iter().all(|(later, other)| *other != who || *later > ticket));
                active.push(who);
            }
            let of = |who: usize| active.iter().filter(|active| **active == who).count() as u32;
            prop_assert!(active.len() as u32 <= concurrency && waiting.len() as u32 <= queue);
            prop_assert!((0..3).all(|who| of(who) <= own));
            let could_go = |(_, who): &(u64, usize)| (active.len() as u32) < concurrency && of(*who) < own;
            prop_assert!(!waiting.iter().any(could_go), "somebody waits while there is room");
            prop_assert_eq!((core.active, core.waiting), (active.len() as u32, waiting.len() as u32));
            let busy = (0..3).filter(|who| of(*who) > 0 || waiting.iter().any(|(_, waits)| waits == who));
            prop_assert_eq!(core.tenants.len(), busy.count());
        }
    }
}
