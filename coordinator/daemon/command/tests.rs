//! What `command` promises, shown with real programs.

use super::*;

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits for a process to vanish by its pidfd, so that no test sleeps.
async fn gone(pid: &str) {
    if let Ok(fd) = Pidfd::open(pid.parse().unwrap()) {
        tokio::time::timeout(Duration::from_secs(5), fd.exited()).await.expect("still alive");
    }
    assert!(!is_alive(pid));
}

#[test]
fn output_and_status_come_back_and_input_is_empty() {
    on_runtime(async {
        let out = Program::new("sh")
            .args(["-c", "cat; echo hello; echo oops >&2; exit 3"])
            .run(Duration::from_secs(5))
            .await
            .unwrap();
        assert_eq!((out.code, out.text().as_str(), out.errors().as_str()), (Some(3), "hello\n", "oops\n"));
        let failed = Program::new("sh").args(["-c", "echo why >&2; exit 1"]);
        let failed = failed.succeed(Duration::from_secs(5)).await.unwrap_err().to_string();
        assert!(failed.contains("exit status: 1") && failed.contains("why"), "{failed}");
    });
}

#[test]
fn a_missing_program_says_what_to_check() {
    on_runtime(async {
        let error = Program::new("/nonexistent/initdb").run(Duration::from_secs(1)).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/initdb could not be started"), "{error}");
    });
}

#[test]
fn the_deadline_kills_the_whole_group() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 300 & echo $! >{0}; echo $$ >>{0}; wait", pids.display());
        let error =
            Program::new("sh").args(["-c", &script]).run(Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
        for pid in std::fs::read_to_string(&pids).unwrap().lines() {
            gone(pid).await;
        }
    });
}

#[test]
fn cancellation_kills_the_whole_group() {
    on_runtime(async {
        let (told, heard) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let run = Program::new("sh").args(["-c", "sleep 300 & echo $! $$ >&2; wait"]).watch(
            Duration::from_secs(60),
            |piece| {
                if let Some(told) = told.take() {
                    told.send(String::from_utf8_lossy(piece).into_owned()).unwrap();
                }
            },
        );
        let mut run = Box::pin(run);
        let pids = tokio::select! {
            _ = &mut run => panic!("it ended"),
            pids = heard => pids.unwrap(),
        };
        drop(run);
        for pid in pids.split_whitespace() {
            gone(pid).await;
        }
    });
}

#[test]
fn what_a_program_leaves_behind_ends_with_it() {
    on_runtime(async {
        let out = Program::new("sh")
            .args(["-c", "sleep 300 & echo $!"])
            .run(Duration::from_secs(20))
            .await
            .unwrap();
        gone(out.text().trim()).await;
    });
}

#[test]
fn output_is_bounded() {
    on_runtime(async {
        let script = "head -c 6000000 /dev/zero; head -c 200000 /dev/zero >&2; echo end >&2";
        let out = Program::new("sh").args(["-c", script]).run(Duration::from_secs(20)).await.unwrap();
        assert_eq!((out.stdout.len(), out.stderr.len()), (KEEP_OUTPUT, KEEP_ERRORS));
        assert!(out.stderr.ends_with(b"end\n"));
    });
}

/// P165, P166.
#[test]
fn programs_do_not_see_the_daemons_own_variables() {
    let ours = [
        ("NOTIFY_SOCKET", "x"),
        ("PATRONI_SUPERUSER_PASSWORD", "x"),
        ("MATRIARCH_NAME", "x"),
        ("KUBERNETES_PORT", "x"),
        ("PG_MALLOC_ARENA_MAX", "2"),
        ("PATH", "/bin"),
    ];
    let theirs = clean_environment(ours.map(|(k, v)| (k.into(), v.into())));
    let names: Vec<_> = theirs.iter().map(|(k, v)| (k.to_str().unwrap(), v.to_str().unwrap())).collect();
    assert_eq!(names, [("MALLOC_ARENA_MAX", "2"), ("PATH", "/bin")]);
}

#[test]
fn a_detached_program_has_its_own_session() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let pid =
            Program::new("sh").args(["-c", "echo started; exec sleep 300"]).start_detached(log).unwrap();
        let fd = Pidfd::open(pid).unwrap();
        let session = rustix::process::getsid(Pid::from_raw(pid as i32)).unwrap();
        fd.signal(Signal::KILL).unwrap();
        tokio::time::timeout(Duration::from_secs(5), fd.exited()).await.unwrap();
        assert_eq!(session.as_raw_nonzero().get(), pid as i32);
    });
}
