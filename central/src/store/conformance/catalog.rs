//! Templates, profiles, tokens.

use super::*;

pub(super) async fn a_profile_in_use_stays_and_names_its_users(bench: Bench) {
    let delete = async || bench.own().delete_profile("p".parse().unwrap()).await;
    let Err(DeleteProfileError::InUse(users)) = delete().await else { panic!("removed") };
    assert_eq!(users, ["t"]);
    assert!(bench.own().delete_template("t".parse().unwrap()).await.unwrap());
    delete().await.unwrap();
    assert!(matches!(delete().await, Err(DeleteProfileError::NotFound)));
}

pub(super) async fn a_template_needs_its_profile(bench: Bench) {
    let orphan = Template { profile: "nobody".parse().unwrap(), ..template() };
    assert!(matches!(bench.own().put_template(orphan).await, Err(PutTemplateError::NoProfile(_))));
    let changed = Template { description: "new".into(), ..template() };
    assert!(!bench.own().put_template(changed.clone()).await.unwrap());
    assert_eq!(bench.own().template("t".parse().unwrap()).await.unwrap(), Some(changed));
}

pub(super) async fn replicas_that_start_together_make_one_admin_token(bench: Bench) {
    let secrets: Vec<_> = (0..6).map(|_| Secret::random("rat")).collect();
    let own = bench.own();
    let kept = futures::future::join_all(secrets.iter().map(|s| own.add_first_admin_token(s.hash(), 1))).await;
    let kept: Vec<_> = kept.into_iter().map(Result::unwrap).collect();
    assert_eq!(kept.iter().filter(|is_kept| **is_kept).count(), 1);
    for (secret, is_kept) in secrets.iter().zip(kept) {
        assert_eq!(bench.store.system().find_api_token(secret.hash(), 1).await.unwrap().is_some(), is_kept);
    }
}

pub(super) async fn a_new_admin_token_replaces_the_old_one(bench: Bench) {
    let (old, new) = (Secret::random("rat"), Secret::random("rat"));
    assert!(!bench.own().has_admin_token().await.unwrap());
    bench.own().replace_admin_token(old.hash(), 1, 0).await.unwrap();
    bench.own().replace_admin_token(new.hash(), 2, 0).await.unwrap();
    assert!(bench.own().has_admin_token().await.unwrap());
    assert_eq!(bench.store.system().find_api_token(old.hash(), 2).await.unwrap(), None);
    assert_eq!(bench.store.system().find_api_token(new.hash(), 2).await.unwrap(), Some(bench.tenant.clone()));
}

pub(super) async fn a_rotated_admin_token_works_beside_its_successor_for_a_while(bench: Bench) {
    let (first, second, third) = (Secret::random("rat"), Secret::random("rat"), Secret::random("rat"));
    bench.own().replace_admin_token(first.hash(), 1, 0).await.unwrap();
    bench.own().replace_admin_token(second.hash(), 10, 100).await.unwrap();
    let is_good =
        async |secret: &Secret, now| bench.store.system().find_api_token(secret.hash(), now).await.unwrap().is_some();
    assert!(is_good(&first, 99).await && is_good(&second, 99).await);
    assert!(!is_good(&first, 100).await && is_good(&second, 100).await);
    bench.own().replace_admin_token(third.hash(), 20, 500).await.unwrap();
    assert!(!is_good(&first, 100).await, "a later rotation lengthens no life");
    assert!(is_good(&second, 499).await && !is_good(&second, 500).await);
    assert_eq!(bench.store.system().expire(600).await.unwrap(), 2);
    assert!(is_good(&third, 600).await);
}
