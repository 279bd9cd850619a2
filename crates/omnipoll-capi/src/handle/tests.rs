use super::*;
use std::sync::{Arc, Barrier};
use std::thread;

/// Counts itself in `alive`, and notices being used after its end. What it holds is no
/// atomic, so that Miri sees a race where the table's orderings don't prevent one.
struct Object {
    alive: Arc<AtomicUsize>,
    secret: u32,
}

impl Object {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self { alive: alive.clone(), secret: 42 }
    }

    fn touch(&self) {
        assert_eq!(self.secret, 42);
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.touch();
        self.secret = 0;
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T, const KIND: u8, const N: usize> Drop for Table<T, KIND, N> {
    fn drop(&mut self) {
        // SAFETY: made by `slot_or_new`, and the table is gone.
        self.blocks.iter().for_each(|block| unsafe { dealloc_block(block.load(Ordering::Relaxed)) });
    }
}

fn free<const KIND: u8, const N: usize>(table: &Table<Object, KIND, N>, handle: usize) -> bool {
    table.enter(handle).is_some_and(|entry| entry.close())
}

#[test]
fn a_handle_is_stale_once_it_is_freed_and_after_its_slot_is_used_again() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 1>::new();
    let first = table.insert(Object::new(&alive)).unwrap();
    table.enter(first).unwrap().touch();

    assert!(free(&table, first));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    assert!(!free(&table, first));

    let second = table.insert(Object::new(&alive)).unwrap();
    assert_ne!(first, second);
    assert!(table.enter(first).is_none());
    table.enter(second).unwrap().touch();
    assert!(free(&table, second));
}

#[test]
fn no_other_number_is_a_handle() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 4>::new();
    let handle = table.insert(Object::new(&alive)).unwrap();
    // Every number that differs in one bit, so also those that would fall onto the state's flags.
    for bit in 0..usize::BITS {
        assert!(table.enter(handle ^ 1 << bit).is_none(), "bit {bit}");
    }
    for garbage in [0, 1, 4, usize::from(u16::MAX), usize::MAX, usize::MAX >> 1, handle + 1] {
        assert!(table.enter(garbage).is_none(), "{garbage:#x}");
    }
    assert!(free(&table, handle));
}

#[test]
fn a_handle_of_another_kind_is_stale() {
    let alive = Arc::default();
    let (pollers, servers) = (Table::<_, POLLER, 1>::new(), Table::<_, SERVER, 1>::new());
    let poller = pollers.insert(Object::new(&alive)).unwrap();
    let server = servers.insert(Object::new(&alive)).unwrap();
    assert!(pollers.enter(server).is_none() && servers.enter(poller).is_none());
    assert!(free(&pollers, poller) && free(&servers, server));
}

#[test]
fn slots_are_made_when_they_are_needed() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, { BLOCK + 1 }>::new();
    let made = |table: &Table<_, POLLER, { BLOCK + 1 }>| {
        table.blocks.iter().filter(|block| !block.load(Ordering::Relaxed).is_null()).count()
    };
    assert_eq!(made(&table), 0);
    let handles: Vec<_> = (0..=BLOCK)
        .map(|index| {
            let handle = table.insert(Object::new(&alive)).unwrap();
            assert_eq!(made(&table), 1 + index / BLOCK);
            handle
        })
        .collect();
    assert_eq!(table.insert(Object::new(&alive)), Err(libc::EMFILE));
    assert!(handles.into_iter().all(|handle| free(&table, handle)));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_full_table_refuses_and_a_vacant_slot_is_found() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 3>::new();
    let handles = [(); 3].map(|()| table.insert(Object::new(&alive)).unwrap());
    assert_eq!(table.insert(Object::new(&alive)), Err(libc::EMFILE));
    assert_eq!(alive.load(Ordering::Relaxed), 3);
    for handle in handles {
        assert!(free(&table, handle));
        let again = table.insert(Object::new(&alive)).unwrap();
        assert!(free(&table, again));
        assert!(table.insert(Object::new(&alive)).is_ok());
    }
}

#[test]
fn a_slot_is_given_up_before_its_handles_repeat() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 2>::new();
    table.slot_or_new(0).unwrap().state.store(name_of(LAST_GENERATION - 1, POLLER), Ordering::Relaxed);
    let last = table.insert(Object::new(&alive)).unwrap();
    assert_eq!(last, handle_of(name_of(LAST_GENERATION, POLLER), 0));
    assert!(free(&table, last));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    let next = table.insert(Object::new(&alive)).unwrap();
    assert_eq!(next, handle_of(name_of(1, POLLER), 1));
    assert_eq!(table.insert(Object::new(&alive)), Err(libc::EMFILE));
    assert!(free(&table, next));
}

#[test]
fn the_object_lives_until_its_last_user_has_left() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 1>::new();
    let handle = table.insert(Object::new(&alive)).unwrap();
    let user = table.enter(handle).unwrap();
    assert!(!user.is_closing());
    assert!(free(&table, handle));
    assert!(user.is_closing());
    assert!(table.enter(handle).is_none());
    assert_eq!(table.insert(Object::new(&alive)), Err(libc::EMFILE));
    user.touch();
    drop(user);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_signal_handler_drops_nothing_and_the_next_insert_does() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 2>::new();
    let handle = table.insert(Object::new(&alive)).unwrap();
    let user = table.enter_signal_safe(handle).unwrap();
    assert!(free(&table, handle));
    drop(user);
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    assert!(table.insert(Object::new(&alive)).is_ok());
    assert_eq!(alive.load(Ordering::Relaxed), 1);
}

#[test]
fn poison_stays_with_the_object_and_not_with_its_slot() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 1>::new();
    let handle = table.insert(Object::new(&alive)).unwrap();
    table.enter(handle).unwrap().poison();
    assert!(table.enter(handle).unwrap().is_poisoned());
    assert!(free(&table, handle));
    let next = table.insert(Object::new(&alive)).unwrap();
    assert!(!table.enter(next).unwrap().is_poisoned());
    assert!(free(&table, next));
}

#[test]
fn a_forked_child_can_free_what_its_parents_threads_were_using() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 2>::new();
    let [open, closing] = [(); 2].map(|()| table.insert(Object::new(&alive)).unwrap());
    // Users that will never leave: in the child, their threads don't exist.
    thread::scope(|scope| {
        scope.spawn(|| [open, closing].map(|handle| std::mem::forget(table.enter(handle))));
    });
    assert!(free(&table, closing));
    table.after_fork();
    assert!(free(&table, open));
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    assert!(table.insert(Object::new(&alive)).is_ok());
    assert!(table.insert(Object::new(&alive)).is_ok());
    assert_eq!(alive.load(Ordering::Relaxed), 2);
}

#[test]
fn a_child_forked_inside_a_use_frees_the_object_when_that_and_all_others_are_over() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 1>::new();
    let handle = table.insert(Object::new(&alive)).unwrap();
    let inherited = table.enter(handle).unwrap();
    table.after_fork();
    let own = table.enter(handle).unwrap();
    assert!(free(&table, handle));
    drop(inherited);
    own.touch();
    drop(own);
    assert_eq!(alive.load(Ordering::Relaxed), 0);

    // Nothing is left of it in a child of the child's.
    let handle = table.insert(Object::new(&alive)).unwrap();
    thread::scope(|scope| scope.spawn(|| std::mem::forget(table.enter(handle))).join().unwrap());
    table.after_fork();
    assert!(free(&table, handle));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_signal_handlers_use_that_the_parent_began_is_not_taken_from_the_childs_count() {
    let alive = Arc::default();
    let table = Table::<_, POLLER, 1>::new();
    let handle = table.insert(Object::new(&alive)).unwrap();
    let inherited = table.enter_signal_safe(handle).unwrap();
    table.after_fork();
    drop(inherited);
    let own = table.enter(handle).unwrap();
    assert!(free(&table, handle));
    own.touch();
    drop(own);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_panic_in_drop_goes_no_further() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a bomb of the test has gone off, as it should");
        }
    }
    let table = Table::<_, POLLER, 1>::new();
    let handle = table.insert(Bomb).unwrap();
    assert!(table.enter(handle).unwrap().close());
    assert!(table.enter(handle).is_none());
}

/// Threads use, free and make objects in two slots, with handles fresh and stale. Each
/// object must be dropped once, and never while a thread is inside.
#[test]
fn freeing_while_others_use_is_safe() {
    const THREADS: usize = 4;
    const ROUNDS: usize = if cfg!(miri) { 100 } else { 100_000 };
    let alive = Arc::default();
    let table = Table::<_, POLLER, 2>::new();
    let handles = [const { AtomicUsize::new(0) }; 2];
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, handles, start, alive) = (&table, &handles, &start, &alive);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let shared = &handles[(thread + round) % 2];
                    let handle = shared.load(Ordering::Relaxed);
                    match (thread + round) % 5 {
                        0 => drop(free(table, handle)),
                        1 => drop(
                            table.insert(Object::new(alive)).map(|new| shared.store(new, Ordering::Relaxed)),
                        ),
                        2 => drop(table.enter_signal_safe(handle).inspect(|entry| entry.touch())),
                        _ => drop(table.enter(handle).inspect(|entry| entry.touch())),
                    }
                }
            });
        }
    });
    for handle in handles {
        free(&table, handle.into_inner());
    }
    // What signal handlers have abandoned is dropped by this; what lost its handle, when another
    // was stored over it, still has a slot.
    while table.insert(Object::new(&alive)).is_ok() {}
    assert_eq!(alive.load(Ordering::Relaxed), 2);
}
