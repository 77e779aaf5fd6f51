//! A flow as its operator shapes it: configs, pauses, policies for what became of a topic, ACLs, previews, verification.

use super::*;

fn flow_with(source: &Arc<Fake>, target: &Arc<Fake>, change: impl FnOnce(&mut FlowConfig)) -> Flow {
    let mut config = config();
    change(&mut config);
    Flow::between(&config, Arc::clone(source) as _, Arc::clone(target) as _, MEMORY).expect("a flow")
}

fn config_of(cluster: &Arc<Fake>, topic: &str, name: &str) -> Option<String> {
    cluster.state().topics.get(topic)?.configs.get(name).cloned()
}

fn set(cluster: &Arc<Fake>, topic: &str, name: &str, value: Option<&str>) {
    let mut state = cluster.state();
    let configs = &mut state.topics.get_mut(topic).expect("the topic").configs;
    match value {
        Some(value) => drop(configs.insert(name.to_owned(), value.to_owned())),
        None => drop(configs.remove(name)),
    }
}

fn words(status: &FlowStatus) -> Vec<&'static str> {
    status.changes.iter().map(|change| change.what.word()).collect()
}

#[tokio::test(start_paused = true)]
async fn configs_follow_by_difference_and_the_targets_own_are_never_wiped() {
    let (source, target) = clusters();
    source.create("t1", 1);
    for (name, value) in [("retention.ms", "7"), ("segment.ms", "8"), ("flush.ms", "9"), ("min.insync.replicas", "2")] {
        set(&source, "t1", name, Some(value));
    }
    let rules = |config: &mut FlowConfig| {
        config.exclude_configs = vec!["flush[.].*".to_owned()];
        config.pin_configs = vec!["segment.ms".to_owned()];
    };
    run_until(flow_with(&source, &target, rules), |status| !status.topics.is_empty() && caught_up(0)(status)).await;
    let has = |name| config_of(&target, "t1.copy", name);
    assert_eq!((has("retention.ms").as_deref(), has("segment.ms").as_deref()), (Some("7"), Some("8")));
    assert_eq!((has("flush.ms"), has("min.insync.replicas")), (None, None));

    // The target's operator sets one of his own and changes the pinned one; the source changes all of its.
    set(&target, "t1.copy", "max.message.bytes", Some("5000"));
    set(&target, "t1.copy", "segment.ms", Some("80"));
    for (name, value) in [("retention.ms", "70"), ("segment.ms", "81"), ("flush.ms", "90")] {
        set(&source, "t1", name, Some(value));
    }
    let followed =
        |status: &FlowStatus| status.changes.iter().any(|change| matches!(change.what, Change::ConfigChanged { .. }));
    let status = run_until(flow_with(&source, &target, rules), followed).await;
    assert_eq!(words(&status), ["config_changed"]);
    assert_eq!(status.changes[0].what.to_string(), "changed t1.copy: retention.ms from 7 to 70");
    assert_eq!((has("max.message.bytes").as_deref(), has("segment.ms").as_deref()), (Some("5000"), Some("80")));

    // The source goes back to its default: what the flow set goes back too, what others set stays.
    for name in ["retention.ms", "segment.ms", "flush.ms"] {
        set(&source, "t1", name, None);
    }
    let status = run_until(flow_with(&source, &target, rules), followed).await;
    assert_eq!(status.changes.len(), 1);
    assert_eq!(has("retention.ms"), None);
    assert_eq!((has("max.message.bytes").as_deref(), has("segment.ms").as_deref()), (Some("5000"), Some("80")));
}

#[tokio::test(start_paused = true)]
async fn a_config_goes_back_although_the_leader_of_the_state_moved_while_it_was_set() {
    let (source, target) = clusters();
    source.create("t1", 1);
    set(&source, "t1", "flush.ms", Some("9"));
    let running = flow(&source, &target);
    let (handle, drain) = (running.handle(), Drain::new());
    drain.spawn(running.run(drain.clone()));
    until(|| !handle.status().topics.is_empty() && caught_up(0)(&handle.status()), || handle.status()).await;
    let has = |name| config_of(&target, "t1.copy", name);
    for (value, node, errors) in [("7", 2, 0), ("8", 3, 0), ("9", 1, 1), ("10", 2, 2), ("11", 3, 5)] {
        target.lead(ledger::TOPIC, 0, node);
        target.state().next_own_errors = vec![KafkaError::NOT_LEADER_OR_FOLLOWER; errors];
        set(&source, "t1", "retention.ms", Some(value));
        until(|| has("retention.ms").as_deref() == Some(value), || handle.status()).await;
        assert!(target.state().next_own_errors.is_empty());
        set(&source, "t1", "retention.ms", None);
        until(|| has("retention.ms").is_none(), || handle.status()).await;
    }
    assert_eq!(has("flush.ms").as_deref(), Some("9"));
    drain.drain(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_topic_stands_still_over_restarts_while_the_others_go_on() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.create("t2", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    source.fill("t2", 0, 0..100, 10, Codec::None);
    let running = flow(&source, &target);
    let (handle, drain) = (running.handle(), Drain::new());
    drain.spawn(running.run(drain.clone()));
    until(|| caught_up(200)(&handle.status()), || handle.status()).await;
    let unknown = handle.pause(Some("t3"), true).await.expect_err("no such topic").to_string();
    assert_eq!(unknown, "flow f copies no topic `t3`");
    handle.pause(Some("t1"), true).await.expect("paused");
    // A fetch that was under way may still bring something; after it nothing comes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    source.fill("t1", 0, 100..200, 10, Codec::None);
    source.fill("t2", 0, 100..200, 10, Codec::None);
    until(|| handle.status().records >= 300, || handle.status()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..100));
    assert_eq!(target.values("t2.copy", 0), numbers(0..200));
    let status = handle.status();
    let shown = status.topics.iter().map(|topic| topic.reason.as_ref().map(|reason| reason.code));
    assert_eq!(shown.collect::<Vec<_>>(), [Some(TroubleCode::Paused), None]);
    assert_eq!(words(&status), ["topic_created", "topic_created", "paused"]);
    drain.drain(Duration::from_secs(60)).await;

    let running = flow(&source, &target);
    let (handle, drain) = (running.handle(), Drain::new());
    drain.spawn(running.run(drain.clone()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..100));
    assert_eq!(handle.paused(), (false, vec!["t1".to_owned()]));
    handle.pause(Some("t1"), false).await.expect("resumed");
    until(|| caught_up(100)(&handle.status()), || handle.status()).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..200));

    handle.pause(None, true).await.expect("paused");
    assert!(handle.status().paused);
    source.create("t4", 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!target.state().topics.contains_key("t4.copy"), "a paused flow changes nothing at the target");
    assert!(matches!(handle.pause(Some("t1"), false).await, Err(OperateError::AllPaused { .. })));
    handle.pause(None, false).await.expect("resumed");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(target.state().topics.contains_key("t4.copy"));
    drain.drain(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn each_partition_has_its_state_and_one_that_stands_still_is_named() {
    let (source, target) = clusters();
    source.create("t1", 2);
    source.fill("t1", 0, 0..10, 10, Codec::None);
    let running = flow(&source, &target);
    let (handle, drain) = (running.handle(), Drain::new());
    drain.spawn(running.run(drain.clone()));
    until(|| caught_up(10)(&handle.status()), || handle.status()).await;
    let topic = |handle: &FlowHandle| handle.status().topics[0].clone();
    assert_eq!((topic(&handle).states.running, topic(&handle).standing.len()), (2, 0));
    // Broker 1 of the target takes requests and does not answer.
    target.state().silent = true;
    source.fill("t1", 0, 10..20, 10, Codec::None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let seen = topic(&handle);
    let standing: Vec<_> = seen.standing.iter().map(|one| (one.partition, one.state, one.lag_records)).collect();
    assert_eq!(standing, [(0, PartitionState::CatchingUp, 10)]);
    assert_eq!(seen.reason.expect("a reason").code, TroubleCode::Stalled);
    target.state().silent = false;
    handle.pause(Some("t1"), true).await.expect("paused");
    let seen = topic(&handle);
    assert_eq!((seen.states.paused, seen.states.running), (2, 0));
    drain.drain(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_stops_where_it_is_told_to_until_the_operator_resumes() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(100)).await;
    source.fill("t1", 0, 100..200, 10, Codec::None);
    source.state().log("t1", 0).delete_before(150);
    let stopping = flow_with(&source, &target, |config| config.policies.on_gap = OnGap::Stop);
    let (handle, drain) = (stopping.handle(), Drain::new());
    drain.spawn(stopping.run(drain.clone()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = handle.status();
    let reason = status.topics[0].reason.as_ref().expect("a reason");
    assert_eq!((reason.code, status.topics[0].state), (TroubleCode::SourceGap, TopicState::Failed));
    assert_eq!(
        reason.text,
        "partition 0: the source deleted offsets 100 to 149 before they were copied (50 offsets); \
         `linkspan resume --topic t1` goes on without them"
    );
    assert_eq!((status.records, status.events.len()), (0, 0));
    handle.pause(Some("t1"), false).await.expect("resumed");
    until(|| caught_up(50)(&handle.status()), || handle.status()).await;
    let events: Vec<_> = handle.status().events.iter().map(|event| event.what).collect();
    assert_eq!(events, [Happened::Source(Event::Gap { from: 100, to: 150 })]);
    let expected: Vec<_> = numbers(0..100).into_iter().chain(numbers(150..200)).collect();
    assert_eq!(target.values("t1.copy", 0), expected);
    drain.drain(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_created_again_is_appended_or_replaced_where_it_is_told_to() {
    for (policy, expected) in [
        (OnRecreate::Append, numbers(0..100).into_iter().chain(numbers(500..550)).collect::<Vec<_>>()),
        (OnRecreate::Replace, numbers(500..550)),
    ] {
        let (source, target) = clusters();
        source.create("t1", 1);
        source.fill("t1", 0, 0..100, 10, Codec::None);
        let mut again = false;
        let running = flow_with(&source, &target, |config| config.policies.on_recreate = policy);
        // While it runs, so that no offset of the old topic is used for the new one.
        let status = run_until(running, |status| {
            if !again && status.records == 100 {
                again = true;
                source.create("t1", 1);
                source.fill("t1", 0, 500..550, 10, Codec::None);
            }
            again && caught_up(150)(status)
        })
        .await;
        assert_eq!(target.values("t1.copy", 0), expected, "{policy:?}");
        let told = match policy {
            OnRecreate::Append => status.events[0].what == Happened::Source(Event::Recreated { from: 0 }),
            _ => words(&status) == ["topic_created", "copy_replaced", "topic_created"],
        };
        assert!(told, "{policy:?}: {:?} {:?}", status.events, status.changes);
    }
}

#[tokio::test(start_paused = true)]
async fn the_copy_of_a_deleted_topic_stays_or_goes_as_it_is_told_to() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.create("t2", 1);
    source.fill("t1", 0, 0..10, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(10)).await;
    source.state().topics.remove("t1");

    let told = |status: &FlowStatus| status.changes.iter().any(|one| one.what.word() == "source_gone");
    let status = run_until(flow(&source, &target), told).await;
    assert_eq!(status.changes[0].what, Change::SourceGone { target: "t1.copy".to_owned(), delete_at_ms: None });
    assert_eq!(target.values("t1.copy", 0), numbers(0..10));

    let delete = |after| {
        move |config: &mut FlowConfig| {
            config.policies.deletes = Deletes::Delete;
            config.policies.delete_after = after;
        }
    };
    // The grace has not passed, and then it is another cluster that has no such topic.
    let waits = flow_with(&source, &target, delete(Duration::from_secs(3_600)));
    let mut looks = 0;
    run_until(waits, |_| {
        looks += 1;
        looks > 1_000
    })
    .await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..10));
    source.state().cluster_id = "another".to_owned();
    let other = flow_with(&source, &target, delete(Duration::ZERO));
    let status = run_until(other, |status| status.last_error.is_some()).await;
    let error = status.last_error.expect("an error").text;
    let expected = "source cluster orange had Kafka's id orange-id and has another now: the copy is kept";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(target.values("t1.copy", 0), numbers(0..10));

    source.state().cluster_id = "orange-id".to_owned();
    let goes = flow_with(&source, &target, delete(Duration::ZERO));
    let gone = |status: &FlowStatus| status.changes.iter().any(|one| one.what.word() == "copy_deleted");
    run_until(goes, gone).await;
    assert!(!target.state().topics.contains_key("t1.copy") && target.state().topics.contains_key("t2.copy"));
}

#[tokio::test(start_paused = true)]
async fn verify_finds_the_first_difference_and_nothing_where_there_is_none() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..900, 10, Codec::Lz4);
    let marked = |bytes: &mut Vec<u8>| {
        bytes[22] |= 0x30;
        bytes[43..51].copy_from_slice(&9_i64.to_be_bytes());
    };
    // A marker makes a gap, so that offsets differ from there on.
    source.append("t1", 0, &[Record::new(0, 5, None, Some(b"marker"), &[])], marked);
    source.fill("t1", 0, 900..1_000, 10, Codec::None);
    let running = flow(&source, &target);
    let (handle, drain) = (running.handle(), Drain::new());
    drain.spawn(running.run(drain.clone()));
    until(|| caught_up(1_000)(&handle.status()), || handle.status()).await;
    assert_eq!(handle.partitions(Some("t1")).expect("partitions"), [("t1".to_owned(), 0)]);
    assert!(handle.partitions(Some("t2")).is_err());
    let budget = Duration::from_secs(5);
    let whole = handle.verify("t1", 0, None, None, budget).await.expect("compared");
    assert_eq!((whole.records, whole.cursor, &whole.difference, &whole.note), (1_000, None, &None, &None));
    let newest = handle.verify("t1", 0, Some(150), None, budget).await.expect("compared");
    assert_eq!((newest.records, newest.difference), (149, None));
    // In parts, as a command asks for them.
    let (mut cursor, mut records, mut parts) = (None, 0, 0);
    loop {
        let part = handle.verify("t1", 0, None, cursor, Duration::ZERO).await.expect("compared");
        (records, parts, cursor) = (records + part.records, parts + 1, part.cursor);
        if cursor.is_none() {
            break;
        }
    }
    assert!(records == 1_000 && parts > 1, "{records} in {parts} parts");

    // The last ten are changed, then lost, at the target.
    let cut = || {
        let mut state = target.state();
        let log = state.log("t1.copy", 0);
        let last = log.batches.pop().expect("a batch");
        log.end = last.offset();
        decode(&last, Limits::default()).expect("records").len() as i64
    };
    let cut_off = cut();
    let first = 1_000 - cut_off;
    let records: Vec<_> = (first..1_000)
        .map(|n| {
            Record::new(
                0,
                1_000 + n,
                Some(b""),
                Some(if n == 995 { b"?".to_vec() } else { n.to_string().into_bytes() }.as_slice()),
                &[],
            )
        })
        .collect();
    target.append("t1.copy", 0, &records, |_| {});
    let changed = handle.verify("t1", 0, None, None, budget).await.expect("compared");
    let difference = changed.difference.expect("a difference");
    assert_eq!((changed.records, difference.source_offset, difference.target_offset), (995, 996, 995));
    assert_eq!(difference.what, "value");
    drain.drain(Duration::from_secs(60)).await;
}

fn read_acl(pattern: AclPattern, name: &str, principal: &str) -> Acl {
    let (name, principal, host) = (name.to_owned(), principal.to_owned(), "*".to_owned());
    Acl { pattern, name, principal, host, operation: AclOperation::Read, allow: true }
}

#[tokio::test(start_paused = true)]
async fn acls_follow_and_only_the_flows_own_are_removed() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..10, 10, Codec::None);
    let literal = |name: &str, principal: &str| read_acl(AclPattern::Literal, name, principal);
    let write = Acl { operation: AclOperation::Write, ..literal("t1", "User:a") };
    source.state().acls =
        Some([literal("t1", "User:a"), literal("t1", "User:b"), literal("other", "User:a"), write].into());
    // One that the copy gets anyway, and one of the target's own.
    let own = [literal("t1.copy", "User:b"), literal("mine", "User:c")];
    target.state().acls = Some(own.clone().into());
    let acls = |config: &mut FlowConfig| {
        config.sync_acls = true;
        config.principals = [("User:a".to_owned(), "User:x".to_owned())].into();
    };
    let with = |more: &[Acl]| Some(own.iter().chain(more).cloned().collect());
    let follows = |expected: Option<std::collections::BTreeSet<Acl>>| {
        let target = Arc::clone(&target);
        move |status: &FlowStatus| target.state().acls == expected && !status.topics.is_empty() && caught_up(0)(status)
    };
    let status = run_until(flow_with(&source, &target, acls), follows(with(&[literal("t1.copy", "User:x")]))).await;
    assert_eq!(words(&status).iter().filter(|word| **word == "acl_added").count(), 1);

    // The source's go: that of the flow goes too, in another run; what was there before stays.
    source.state().acls = Some([].into());
    let status = run_until(flow_with(&source, &target, acls), follows(with(&[]))).await;
    assert!(words(&status).contains(&"acl_removed"));
    assert_eq!(target.values("t1.copy", 0), numbers(0..10));
}

#[tokio::test(start_paused = true)]
async fn a_target_without_an_authorizer_is_told_once_and_disturbs_nothing() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    source.state().acls = Some([read_acl(AclPattern::Literal, "t1", "User:a")].into());
    let running = flow_with(&source, &target, |config| config.sync_acls = true);
    let status = run_until(running, |status| status.acls.reason.is_some() && caught_up(100)(status)).await;
    let reason = status.acls.reason.expect("a reason");
    assert_eq!(
        (reason.code, reason.text.as_str()),
        (TroubleCode::Acls, "target cluster grape has no authorizer, so that there are no ACLs: set sync_acls = false")
    );
    assert_eq!(target.values("t1.copy", 0), numbers(0..100));
}

#[tokio::test(start_paused = true)]
async fn a_preview_says_what_would_be_done_and_does_nothing() {
    let (source, target) = clusters();
    source.create("t1", 2);
    source.create("other", 1);
    let preview = flow(&source, &target).preview(None).await.expect("a preview");
    let planned = &preview.plan.topics["t1"];
    assert_eq!((planned.target.as_str(), planned.actions.len()), ("t1.copy", 1));
    assert!(!preview.plan.why["other"].is_included());
    assert!(target.state().topics.is_empty(), "nothing is made, not even topics of its own");

    let running = flow(&source, &target);
    let handle = running.handle();
    source.fill("t1", 0, 0..10, 10, Codec::None);
    run_until(running, caught_up(10)).await;
    source.create("t1", 2);
    let preview = flow(&source, &target).preview(Some(&handle)).await.expect("a preview");
    assert_eq!(preview.reasons["t1"][0].code, TroubleCode::SourceRecreated);
}
