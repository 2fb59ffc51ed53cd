/* Two masters and one to three agents: who may dispatch. The rules are those of docs/STANDBY.md, "Who may dispatch"; a comment in
 * quotes is the sentence that the lines below it are. README.md says how this is read, what is left out, and how it is run.
 *
 * A `do :: guard -> ... od` takes any option whose guard holds; the checker tries all of them, in every order. Each option is one
 * atomic step. Nobody ever has to move: a master or a machine that is paused is one that does not, a message that is lost is one
 * that nobody reads, a partition is the loss of all that would cross it (in one direction or in both), and a message is late when
 * time passes before it is read. So all of these need no code here: the checker tries every one of them by itself.
 */

#ifndef AGENTS
#define AGENTS 2
#endif
#ifndef FIRST
#define FIRST ((1 << AGENTS) - 1)       /* the electorate at the begin, a set of agents as bits */
#endif
#ifndef LENGTH
#define LENGTH 2                        /* ticks in `takeover_after`: the length of a promise, of a lease, of a silence */
#endif
#ifndef LAST
#define LAST 3                          /* nobody stands for a higher epoch: this makes the model finite */
#endif
#define NOBODY 2

mtype = { STANDBY, CANDIDATE, ACTIVE };
mtype = { NOTHING, BEAT, LEASE, VOTE, GRANT, RELEASE, PULSE, PROMISE, CLOSING };

/* What is on the way between two of them: one message, the newest. `age` counts from when the master sent what is being asked or
 * answered: with it the master counts a lease from sending, as the docs want, without keeping the time of each beat. */
typedef Message { mtype what = NOTHING; byte epoch; byte age; byte electorate };

typedef Master {
    mtype state = STANDBY;
    byte epoch;                         /* durable: the highest that it knows to have been won; as ACTIVE, its own */
    byte used;                          /* durable: the highest that it stood for or heard of */
    byte electorate;                    /* durable */
    byte before;                        /* durable: the electorate before a change that is not acknowledged yet; 0: none */
    byte held;                          /* as ACTIVE: ticks left of the other one's promise */
    byte promised;                      /* as STANDBY: ticks left of the own promise */
    bit may_stand;                      /* the other one is DEAD as soon as the promise has run out, or has handed over */
    byte votes;                         /* as CANDIDATE: who granted `used` */
    byte lease[AGENTS];                 /* ticks left */
};

typedef Agent {
    byte epoch = 1;                     /* durable: the highest that it granted or obeys */
    byte voted = 0;                     /* durable: for whom */
    byte leased = NOBODY;               /* to whom; NOBODY with ticks left: it abstains */
    byte ticks;                         /* left of its lease */
    byte fence = 1;                     /* in the page of its processes: survives the agent */
    byte granted = 1;                   /* only for the check: the highest Grant that it sent */
};

Master master[2];                       /* 0: role primary, 1: role backup */
Agent agent[AGENTS];
Message talk[2 * AGENTS];               /* of master m and agent a: TALK */
Message peer[2];                        /* what the active m and the other master say */
byte winner[LAST + 8] = NOBODY;         /* only for the check: who won an epoch */
byte flying;                            /* the epoch of one delivery that was decided and not started yet; 0: none */
byte heard;                             /* an epoch that somebody just said, for learn() */
byte calm;                              /* rounds since nothing breaks any more (-DCALM); 0: everything may break */

#define TALK(m, a) talk[(m) * AGENTS + (a)]
#define OTHER(m) (1 - (m))
#define COUNT(set) (((set) & 1) + (((set) >> 1) & 1) + (((set) >> 2) & 1))
#define MAJORITY(set, of) (2 * COUNT((set) & (of)) > COUNT(of))
#define BLOCKING(set, of) (2 * COUNT((set) & (of)) >= COUNT(of))  /* "half of them, rounded up: the others are no majority" */

#if AGENTS == 1
#define LEASES(m) (master[m].lease[0] > 0)
#elif AGENTS == 2
#define LEASES(m) ((master[m].lease[0] > 0) | ((master[m].lease[1] > 0) << 1))
#else
#define LEASES(m) ((master[m].lease[0] > 0) | ((master[m].lease[1] > 0) << 1) | ((master[m].lease[2] > 0) << 2))
#endif

/* "The active needs blocking sets of the old and the new electorate until the standby has acknowledged the change": the same holds
 * for the majority of a candidate whose change was not acknowledged when it was active. */
#ifdef MUTANT_ACTIVE_NOT_JOINT
#define BLOCKED(m) BLOCKING(LEASES(m), master[m].electorate)
#else
#define BLOCKED(m) (BLOCKING(LEASES(m), master[m].electorate) && (!master[m].before || BLOCKING(LEASES(m), master[m].before)))
#endif
#ifdef MUTANT_CANDIDATE_NOT_JOINT
#define ELECTED(m) MAJORITY(master[m].votes, master[m].electorate)
#else
#define ELECTED(m) (MAJORITY(master[m].votes, master[m].electorate) && (!master[m].before || MAJORITY(master[m].votes, master[m].before)))
#endif

/* "With a standby it may dispatch while it holds one of: the standby's promise; leases of a blocking set" */
#define MAY_DISPATCH(m) (master[m].state == ACTIVE && (master[m].held > 0 || BLOCKED(m)))

/* "It stands when its last promise has run out and the active is DEAD or has handed over." */
#ifdef MUTANT_IGNORES_PROMISE
#define MAY_STAND(m) (master[m].state != ACTIVE && master[m].may_stand)
#else
#define MAY_STAND(m) (master[m].state != ACTIVE && master[m].may_stand && !master[m].promised)
#endif

/* "Both are counted by the active from the moment when it sent what was answered" */
#ifdef MUTANT_COUNTS_FROM_RECEIPT
#define WHAT_IS_LEFT(message) LENGTH
#else
#define WHAT_IS_LEFT(message) (LENGTH - message.age)
#endif

#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define LESS(ticks) ticks = (ticks > 0 -> ticks - 1 : 0)

/* a request is new, an answer is as old as its request */
#define say(message, w, e, old) message.age = old; message.epoch = e; message.what = w
#define drop(message) message.what = NOTHING; message.epoch = 0; message.age = 0; message.electorate = 0

inline forget_leases(m) {
    master[m].held = 0; master[m].votes = 0; master[m].lease[0] = 0;
#if AGENTS > 1
    master[m].lease[1] = 0;
#endif
#if AGENTS > 2
    master[m].lease[2] = 0;
#endif
}

/* ---- what a master does --------------------------------------------------------------------------------------------------- */

/* "The primary takes odd ones, the backup even ones": who remembers its votes needs that not, and is checked without it. */
#ifdef FORGETFUL
#define NEXT(m) (master[m].used + 1 + (master[m].used + m) % 2)
#else
#define NEXT(m) (master[m].used + 1)
#endif

inline stand(m) {  /* "It makes its next epoch durable, asks every agent for its vote" */
    master[m].used = NEXT(m);
    master[m].state = CANDIDATE;
    forget_leases(m)
}

inline give_up(m) {
    master[m].state = STANDBY;
    forget_leases(m)
}

inline step_down(m) {  /* "it becomes a standby": and promises nothing, but waits as long as if it had */
    give_up(m);
    master[m].promised = LENGTH;
    master[m].may_stand = 1;
}

inline restart_master(m) {  /* epoch, used, electorate and before are durable, the rest is not */
    forget_leases(m);
    master[m].state = STANDBY;
#ifdef MUTANT_EPOCH_NOT_DURABLE
    master[m].used = 1; master[m].epoch = 1;
#endif
#ifdef MUTANT_PROMISE_FORGOTTEN
    master[m].promised = 0;
#else
    master[m].promised = LENGTH;
#endif
    master[m].may_stand = (m == 0);     /* "A standby that has never heard the active since it started takes over nothing": the primary does */
    drop(peer[OTHER(m)])
}

inline hand_over(m) {  /* "Closing", "Release": it dispatches nothing any more */
#ifndef MUTANT_HANDS_OVER_EARLY
    step_down(m);
#endif
    say(peer[m], CLOSING, master[m].epoch, 0)
}

inline change_electorate(m, a) {  /* an agent said hello or goodbye; "while the standby is not heard nothing is changed" */
    master[m].before = master[m].electorate;
    master[m].electorate = master[m].electorate ^ (1 << a)
}
#define MAY_CHANGE(m, a) (master[m].state == ACTIVE && master[m].held && !master[m].before && (master[m].electorate ^ (1 << a)))

inline win(m) {
    master[m].state = ACTIVE;
    master[m].epoch = master[m].used;
    assert(winner[master[m].epoch] == NOBODY);  /* an epoch is won once */
    winner[master[m].epoch] = m;
    master[m].votes = 0; master[m].may_stand = 0
}

inline learn(m) {  /* "an active that hears of a higher one than its own steps down" */
    if
    :: heard > master[m].used ->
        master[m].used = heard;
        if :: master[m].state == ACTIVE -> step_down(m) :: master[m].state == CANDIDATE -> give_up(m) :: else fi
    :: else
    fi;
    heard = 0
}

inline master_reads(m, a) {
    if
    :: TALK(m, a).what == LEASE && master[m].state == ACTIVE && TALK(m, a).epoch == master[m].epoch ->
        master[m].lease[a] = WHAT_IS_LEFT(TALK(m, a))
    :: TALK(m, a).what == GRANT && master[m].state != STANDBY && TALK(m, a).epoch == master[m].used ->
        master[m].lease[a] = WHAT_IS_LEFT(TALK(m, a));  /* "A grant is the first lease" */
        if
        :: master[m].state == CANDIDATE ->
            master[m].votes = master[m].votes | (1 << a);
            if :: ELECTED(m) -> win(m) :: else fi
        :: else
        fi
    :: else
    fi;
    drop(TALK(m, a))
}

inline other_reads(m) {  /* the master that is not m reads what the active m says */
    if
    :: peer[m].epoch < master[OTHER(m)].epoch -> drop(peer[m]); heard = master[OTHER(m)].epoch; learn(m)
#ifdef MUTANT_CANDIDATE_PROMISES
    :: peer[m].epoch >= master[OTHER(m)].epoch && peer[m].what == PULSE && master[OTHER(m)].state == CANDIDATE ->
        say(peer[m], PROMISE, peer[m].epoch, peer[m].age)
#endif
    :: else ->
        give_up(OTHER(m));              /* a candidate, or an active that is refused: the other one has won a higher epoch */
        master[OTHER(m)].epoch = peer[m].epoch;
        master[OTHER(m)].used = MAX(master[OTHER(m)].used, peer[m].epoch);
        master[OTHER(m)].may_stand = 1;
        if
        :: peer[m].what == PULSE ->     /* "Promise: no standing for so long from now; everything up to `sequence` is journaled" */
            master[OTHER(m)].electorate = peer[m].electorate;
            master[OTHER(m)].before = 0;
            master[OTHER(m)].promised = LENGTH;
            say(peer[m], PROMISE, peer[m].epoch, peer[m].age)
        :: else ->                      /* "the standby stands at once" */
            master[OTHER(m)].promised = 0;
            drop(peer[m])
        fi
    fi
}

inline active_reads(m) {
    if
    :: master[m].state == ACTIVE && peer[m].epoch == master[m].epoch ->
        master[m].held = WHAT_IS_LEFT(peer[m]);
        if :: peer[m].electorate == master[m].electorate -> master[m].before = 0 :: else fi
    :: else
    fi;
    drop(peer[m])
}

/* ---- what an agent does ---------------------------------------------------------------------------------------------------- */

#define obey(a, message) \
    if \
    :: message.epoch > agent[a].epoch -> agent[a].epoch = message.epoch; agent[a].voted = NOBODY \
    :: else \
    fi; \
    fence(a)

#ifdef MUTANT_FENCE_AFTER_GRANT
#define fence(a) skip
#else
#define fence(a) agent[a].fence = agent[a].epoch  /* "fences every page" */
#endif

inline lease_to(m, a) { agent[a].leased = m; agent[a].ticks = LENGTH }

#ifdef MUTANT_IGNORES_LEASE
#define FREE_FOR(m, a) true
#else
#define FREE_FOR(m, a) (!agent[a].ticks || agent[a].leased == m)
#endif

/* A vote that it has granted is granted again, as the answer may have been lost: but it may have leased since then to who won that
 * same epoch, so that this, too, waits for the lease, and for the one after its start. */
#ifdef MUTANT_GRANTS_AGAIN
#define MAY_GRANT(m, a) ((TALK(m, a).epoch > agent[a].epoch && FREE_FOR(m, a)) || GRANTED_BEFORE(m, a))
#else
#define MAY_GRANT(m, a) (FREE_FOR(m, a) && (TALK(m, a).epoch > agent[a].epoch || GRANTED_BEFORE(m, a)))
#endif
#define GRANTED_BEFORE(m, a) (TALK(m, a).epoch == agent[a].epoch && agent[a].voted == m)

/* -DFORGETFUL: agents without a state directory, which remember no vote. "Who remembers no epoch leases to nobody" for one lease after
 * its start, and to another master only when its last lease has run out. The others are bound by their votes, whatever they lease. */
#if defined(FORGETFUL) && !defined(MUTANT_LEASES_AT_ONCE)
#define MAY_LEASE(m, a) FREE_FOR(m, a)
#else
#define MAY_LEASE(m, a) true
#endif

inline agent_reads(m, a) {
    if
    :: TALK(m, a).what == BEAT && TALK(m, a).epoch >= agent[a].epoch ->
        obey(a, TALK(m, a));                    /* "Won: obey me" */
        if
        :: MAY_LEASE(m, a) ->
            lease_to(m, a);                     /* "Each beat of an agent that answers a beat of the master is a lease" */
            say(TALK(m, a), LEASE, TALK(m, a).epoch, TALK(m, a).age)
        :: else -> drop(TALK(m, a))
        fi
    /* "It grants one vote an epoch, and none while its lease to another master runs." */
    :: TALK(m, a).what == VOTE && MAY_GRANT(m, a) ->
        obey(a, TALK(m, a));
        agent[a].voted = m;                     /* "it makes the vote durable" */
        lease_to(m, a);
#ifdef DELIVERIES
        agent[a].granted = MAX(agent[a].granted, TALK(m, a).epoch);
#endif
        say(TALK(m, a), GRANT, TALK(m, a).epoch, TALK(m, a).age)
    :: TALK(m, a).what == RELEASE ->            /* "it dispatches nothing any more in this epoch: its lease is void" */
        if :: agent[a].leased == m && agent[a].epoch == TALK(m, a).epoch -> agent[a].leased = NOBODY; agent[a].ticks = 0 :: else fi;
        drop(TALK(m, a))
    :: else -> drop(TALK(m, a)); heard = agent[a].epoch; learn(m)  /* "From then on it obeys no lower epoch", and says which it knows */
    fi
}

inline restart_agent(a) {
#ifdef FORGETFUL
    agent[a].epoch = 1; agent[a].voted = 0;
#endif
#ifdef MUTANT_NO_ABSTENTION
    agent[a].leased = NOBODY; agent[a].ticks = 0
#else
    agent[a].leased = NOBODY; agent[a].ticks = LENGTH   /* "After a start it abstains for one lease" */
#endif
}

/* ---- all of them, and time ------------------------------------------------------------------------------------------------- */

/* -DPROMPT: what a master asks is read at once or never; answers may be late. The state space is a tenth of the full one, and what it
 * leaves out makes things safer: a lease whose request was late begins later for the agent, and not for the master. */
#ifdef PROMPT
#define then_read(reading) reading
#else
#define then_read(reading) skip
#endif

proctype Link(byte m; byte a) provided (calm == 0) {
    do
    :: d_step { master[m].state == ACTIVE && (TALK(m, a).what == NOTHING || TALK(m, a).age) ->
                say(TALK(m, a), BEAT, master[m].epoch, 0); then_read(agent_reads(m, a)) }
    :: d_step { master[m].state == CANDIDATE && !(master[m].votes & (1 << a)) && (TALK(m, a).what == NOTHING || TALK(m, a).age) ->
                say(TALK(m, a), VOTE, master[m].used, 0); then_read(agent_reads(m, a)) }
    :: d_step { TALK(m, a).what == LEASE || TALK(m, a).what == GRANT -> master_reads(m, a) }
#ifndef PROMPT
    :: d_step { TALK(m, a).what == BEAT || TALK(m, a).what == VOTE || TALK(m, a).what == RELEASE -> agent_reads(m, a) }
#endif
#ifdef MUTANT_POLL_COUNTS
    :: d_step { TALK(m, a).what == VOTE && MAY_GRANT(m, a) -> say(TALK(m, a), GRANT, TALK(m, a).epoch, TALK(m, a).age) }
#endif
#ifdef CHANGE
    :: d_step { MAY_CHANGE(m, a) -> change_electorate(m, a) }
#endif
    od
}

proctype One(byte m) provided (calm == 0) {
    do
    :: d_step { MAY_STAND(m) && NEXT(m) <= LAST -> stand(m) }
    :: d_step { master[m].state == ACTIVE && (peer[m].what == NOTHING || peer[m].age) ->
                say(peer[m], PULSE, master[m].epoch, 0); peer[m].electorate = master[m].electorate; then_read(other_reads(m)) }
    :: d_step { peer[m].what == PROMISE -> active_reads(m) }
#ifndef PROMPT
    :: d_step { peer[m].what == PULSE || peer[m].what == CLOSING -> other_reads(m) }
#endif
    :: d_step { master[m].state != STANDBY || master[m].promised -> restart_master(m) }
#ifdef HANDOVER
    :: d_step { master[m].state == ACTIVE -> hand_over(m);
                say(TALK(m, 0), RELEASE, master[m].epoch, 0); then_read(agent_reads(m, 0));
#if AGENTS > 1
                say(TALK(m, 1), RELEASE, master[m].epoch, 0); then_read(agent_reads(m, 1));
#endif
                then_read(other_reads(m)) }
#endif
#ifdef DELIVERIES
    :: d_step { MAY_DISPATCH(m) && !flying -> flying = master[m].epoch }
#endif
    od
}

proctype Node(byte a) provided (calm == 0) {
    do
    :: d_step { agent[a].ticks && agent[a].leased != NOBODY -> restart_agent(a) }
#ifdef FORGETFUL
    :: d_step { agent[a].epoch > 1 -> restart_agent(a) }
#endif
#ifdef MUTANT_FENCE_AFTER_GRANT
    :: d_step { agent[a].fence < agent[a].epoch -> agent[a].fence = agent[a].epoch }
#endif
#ifdef DELIVERIES
    /* A process reads the fence right before it starts a delivery, however late that comes: its master may be gone or paused since. */
    :: d_step { flying && flying < agent[a].fence -> flying = 0 }
    :: d_step { flying && flying >= agent[a].fence ->
                assert(flying >= agent[a].granted);     /* after a Grant of n + 1 nothing of n starts here */
#ifdef REACH_LATE_START
                assert(!(MAY_DISPATCH(0) && master[0].epoch > flying) && !(MAY_DISPATCH(1) && master[1].epoch > flying));
#endif
                flying = 0 }
#endif
    od
}

/* time passes for a message. A lease or a promise of that age is worth nothing: lost. A vote is worth something however late. */
#define LASTING(message) (message.what == VOTE || message.what == GRANT || message.what == CLOSING)
#define older(message) \
    if \
    :: message.what == NOTHING \
    :: message.what != NOTHING && message.age >= LENGTH - 1 && !LASTING(message) -> drop(message) \
    :: else -> message.age = (message.age < LENGTH -> message.age + 1 : LENGTH) \
    fi

inline tick() {
    for (i : 0 .. 1) {
        LESS(master[i].held); LESS(master[i].promised); older(peer[i]);
        for (j : 0 .. AGENTS - 1) { LESS(master[i].lease[j]); older(TALK(i, j)) }
    }
    for (j : 0 .. AGENTS - 1) {
        LESS(agent[j].ticks);
        if :: !agent[j].ticks -> agent[j].leased = NOBODY :: else fi
    }
    i = 0; j = 0
}

proctype Time() provided (calm == 0) {
    byte i, j;
    do
    :: d_step { true -> tick() }
    od
}

/* (1), (3): never may two dispatch, in one epoch or in two. */
active proctype Watch() provided (calm == 0) {
    atomic { MAY_DISPATCH(0) && MAY_DISPATCH(1) -> assert(false) }
}

#ifdef REACH_TAKEOVER
active proctype Takeover() { atomic { MAY_DISPATCH(1) -> assert(false) } }
#endif
#ifdef REACH_RETURN
active proctype Return() { atomic { MAY_DISPATCH(0) && master[0].epoch == 3 && winner[2] == 1 -> assert(false) } }
#endif

#ifdef CALM
/* (4): from any state in which m may dispatch, and nobody whose lease it needs has granted a higher epoch: the other master is dead
 * from now on, and node `dead` too, and m goes on. */
#define LIVING (((1 << AGENTS) - 1) & ~(1 << dead))
#define KNOWS_HIGHER(m, a) (a != dead && agent[a].epoch > master[m].epoch)
proctype Calm(byte m; byte dead) {
    byte i, j;
    d_step { calm == 0 && MAY_DISPATCH(m) && !KNOWS_HIGHER(m, 0) && (AGENTS == 1 || !KNOWS_HIGHER(m, AGENTS - 1)) && !KNOWS_HIGHER(m, AGENTS / 2) &&
             BLOCKING(LIVING, master[m].electorate) && (!master[m].before || BLOCKING(LIVING, master[m].before)) -> calm = 1 }
    do
    :: d_step { calm <= 3 * LENGTH ->
        for (j : 0 .. AGENTS - 1) {
            if
            :: j != dead -> drop(TALK(m, j)); say(TALK(m, j), BEAT, master[m].epoch, 0); agent_reads(m, j); master_reads(m, j)
            :: else
            fi
        }
        assert(MAY_DISPATCH(m));
        tick();
        calm = calm + 1 }
    :: calm > 3 * LENGTH -> break
    od
}
#endif

init {
    atomic {
        master[0].state = ACTIVE; master[0].epoch = 1; master[0].used = 1; master[0].electorate = FIRST;
        master[1].epoch = 1; master[1].used = 1; master[1].electorate = FIRST; master[1].may_stand = 1; master[1].promised = LENGTH;
        winner[1] = 0;
        run Time();
        run One(0); run One(1);
        run Link(0, 0); run Link(1, 0); run Node(0);
#if AGENTS > 1
        run Link(0, 1); run Link(1, 1); run Node(1);
#endif
#if AGENTS > 2
        run Link(0, 2); run Link(1, 2); run Node(2);
#endif
#ifdef CALM
        run Calm(0, 0); run Calm(1, 0); run Calm(0, AGENTS); run Calm(1, AGENTS);
#endif
    }
}
