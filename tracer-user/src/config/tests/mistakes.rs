//! Files with mistakes, and every sentence that each gets.

/// A text, and what is said of it, a line each.
pub const MISTAKES: &[(&str, &[&str])] = &[
    ("[capture]\nrng_bytes = 1\n", &["FILE:2:1: unknown key `rng_bytes` in [capture]: did you mean `ring_bytes`?"]),
    (
        "[capture]\nreconcile_s = 1\nxyzzy = 1\n",
        &[
            "FILE:2:1: unknown key `reconcile_s` in [capture]: it belongs to [inventory]",
            "FILE:3:1: unknown key `xyzzy` in [capture]: there is `ring_bytes`, `map_entries`, `hooks`, `recognize`, `btf`, `ports`",
        ],
    ),
    ("\n[captur]\n", &["FILE:2:2: unknown section [captur]: did you mean [capture]?"]),
    ("[[endpoints]]\n", &["FILE:1:3: unknown section [endpoints]: did you mean [endpoint]?"]),
    ("capture = 1\n", &["FILE:1:11: capture is 1: it must be a table"]),
    ("[capture]\nring_bytes = \"1\"\n", &["FILE:2:14: capture.ring_bytes is \"1\": it must be a whole number"]),
    ("[capture]\nring_bytes = 1.5\n", &["FILE:2:14: capture.ring_bytes is 1.5: it must be a whole number"]),
    ("[capture]\nrecognize = 1\n", &["FILE:2:13: capture.recognize is 1: it must be true or false"]),
    ("[api]\ngroup = 1979-05-27\n", &["FILE:2:9: api.group is 1979-05-27: it must be a text in quotes"]),
    ("[api]\ngroup = dba\n", &["FILE:2:9: string values must be quoted, expected literal string"]),
    ("[inventory]\nreconcile_s = 5\nreconcile_s = 6\n", &["FILE:3:1: duplicate key"]),
    ("[capture]\nring_bytes = 1000\n", &["FILE:2:14: capture.ring_bytes is 1000: it must be from 65536 to 67108864"]),
    ("[capture]\nring_bytes = 65537\n", &["FILE:2:14: capture.ring_bytes is 65537: it must be a power of two"]),
    ("[capture]\nmap_entries = 7\n", &["FILE:2:15: capture.map_entries is 7: it must be from 1024 to 1048576"]),
    (
        "[capture.ports]\n1 = \"a\"\n70000 = \"a b\"\n5 = 7\n",
        &[
            "FILE:3:1: capture.ports: \"70000\" is no port: ports go from 1 to 65535",
            "FILE:3:9: capture.ports: \"a b\" is no database name: use 1 to 32 letters, digits, '_', '-', '.'",
            "FILE:4:5: capture.ports: 7 is no database name: write it in quotes",
        ],
    ),
    ("[inventory]\nreconcile_s = 0\n", &["FILE:2:15: inventory.reconcile_s is 0: it must be from 1 to 3600"]),
    (
        "[inventory]\nreconcile_s = 99999999999999999999\n",
        &["FILE:2:15: inventory.reconcile_s is 99999999999999999999: it must be from 1 to 3600"],
    ),
    ("[detect]\nwindow_s = -1\n", &["FILE:2:12: detect.window_s is -1: it must be from 1 to 3600"]),
    (
        "[detect.limit_pressure]\nwarn_percent = 101\n",
        &["FILE:2:16: detect.limit_pressure.warn_percent is 101: it must be from 1 to 100"],
    ),
    (
        "[detect.limit_pressure]\nwarn_percent = 95\n",
        &["detect.limit_pressure.warn_percent is 95 and critical_percent is 95: the first must be below the second"],
    ),
    (
        "[detect.limit_pressure]\nenabled = 1\n",
        &["FILE:2:11: detect.limit_pressure.enabled is 1: it must be true or false"],
    ),
    (
        "[detect.limit_pressure]\nwarn_percent = \"many\"\n",
        &["FILE:2:16: detect.limit_pressure.warn_percent is \"many\": it must be a whole number"],
    ),
    (
        "[detect.limit_pressure]\n\nwarn = 1\n",
        &[
            "FILE:3:1: unknown key `warn` in [detect.limit_pressure]: there is `enabled`, `warn_percent`, `critical_percent`",
        ],
    ),
    (
        "[detect.limit_presure]\n",
        &["FILE:1:9: unknown key `limit_presure` in [detect]: did you mean `limit_pressure`?"],
    ),
    ("[privacy]\ncmdline = \"on\"\n", &["FILE:2:11: privacy.cmdline is \"on\": it must be \"off\" or \"redacted\""]),
    ("[api]\nsocket = \"\"\n", &["FILE:2:10: api.socket is \"\": give the path of the control socket"]),
    ("[history]\ndir = \"\"\n", &["FILE:2:7: history.dir is \"\": give the path of a directory"]),
    (
        "[capture]\nhooks = [\"fexit\"]\n",
        &["FILE:2:9: capture.hooks names neither raw_tp nor poll: one of them has to tell which connections there are"],
    ),
    ("[[endpoint]]\nname = \"x\"\n", &["FILE:1:1: [[endpoint]] has no `match`: say which endpoints it is for"]),
    ("[endpoint]\nmatch = \"x\"\n", &["FILE:1:1: endpoint is a table: write [[endpoint]], once for each"]),
    (
        "[[endpoint]]\nmatch = \"10.0.0.5\"\n",
        &[
            "FILE:2:9: endpoint: \"10.0.0.5\" has no port: write IP:PORT, HOST:PORT, 10.0.0.0/8:PORT, FIRST-LAST:PORT or \
           *:PORT, IPv6 in brackets; PORT may be 5432-5439 or *",
        ],
    ),
    ("[[endpoint]]\nmatch = 5432\n", &["FILE:2:9: endpoint.match is 5432: it must be a text in quotes"]),
    (
        "[[endpoint]]\nmatch = \"10.0.0.5:5432\"\nlimit = 0\n",
        &["FILE:3:9: endpoint.limit is 0: it must be from 1 to 4294967295"],
    ),
    (
        "[[endpoint]]\nmatch = \"10.0.0.5:6000\"\ndatabase = \"postgres\"\n[[endpoint]]\nmatch = \"10.0.0.5:6000-6009\"\n",
        &[
            "FILE:2:9: port 6000 is not watched: add --port 6000=postgres, or to capture.ports",
            "FILE:5:9: no port from 6000 to 6009 is watched: add them to capture.ports",
        ],
    ),
    (
        "[[endpoint]]\nmatch = \"10.0.0.5:5432\"\n[[endpoint]]\nmatch = \"[::ffff:10.0.0.5]:5432\"\n",
        &["FILE:4:9: endpoint \"[::ffff:10.0.0.5]:5432\" is already given in FILE:2:9"],
    ),
    (
        "[[endpoint]]\nmatch = \"10.0.0.5:5432\"\nname = \" \"\nlimt = 5\n",
        &[
            "FILE:3:8: endpoint: name \" \" must be 1 to 128 characters on one line",
            "FILE:4:1: unknown key `limt` in [[endpoint]]: did you mean `limit`?",
        ],
    ),
    (
        "[[endpoint]]\nmatch = \"10.0.0.5:5432\"\ndetect.limit_pressure.critical_percent = 70\ndetect.x.y = 1\n",
        &[
            "FILE:4:8: unknown key `x` in [endpoint.detect]: there is `connection_leak`, `limit_pressure`, \
             `headroom_forecast`, `restart_drop`, `client_per_request`, `idle_hold`, `unused_connection`, \
             `close_wait_leak`, `duplicate_launchers`, `pool_sprawl`, `oversized_pool`, `orphaned_connection`, \
             `connect_failures`, `peer_unreachable`, `half_open_at_database`, `silent_drop_risk`",
            "FILE:2:9: for this endpoint detect.limit_pressure.warn_percent is 80 and critical_percent is 70: the first \
             must be below the second",
        ],
    ),
    (
        "[[group]]\ndetect.idle_hold.after_s = 5\n[[group]]\nmatch = \"a*\"\n[[group]]\nmatch = \"a*\"\ndetect = 1\n",
        &[
            "FILE:1:1: [[group]] has no `match`: say which labels it is for",
            "FILE:3:1: [[group]] has no `detect`: say what is different for it",
            "FILE:6:9: group \"a*\" is already given in FILE:4:9",
            "FILE:7:10: group.detect is 1: it must be a table",
        ],
    ),
    (
        "[[group]]\nmatch = \"a\"\ndetect.limit_pressure.warn_percent = 99\n",
        &[
            "FILE:2:9: for this group detect.limit_pressure.warn_percent is 99 and critical_percent is 95: the first must be \
           below the second",
        ],
    ),
    (
        "[[ignore]]\nkind = \"idle_hodl\"\nuntil = \"tomorrow\"\nreason = \"x\"\nwhy = 1\n",
        &[
            "FILE:2:8: ignore: \"idle_hodl\" is no kind of finding: did you mean \"idle_hold\"?",
            "FILE:3:9: ignore.until is \"tomorrow\": write a time such as \"2026-12-01T00:00:00Z\"",
            "FILE:5:1: unknown key `why` in [[ignore]]: there is `kind`, `endpoint`, `group`, `exe`, `script`, `user`, `unit`, \
             `until`, `reason`",
        ],
    ),
    (
        "[[ignore]]\nkind = \"idle_hold\"\nendpoint = \"x\"\n[[ignore]]\nreason = \"all of it\"\n",
        &[
            "FILE:1:1: [[ignore]] has no `reason`: whoever reads this later needs one",
            "FILE:3:12: ignore: \"x\" has no port: write IP:PORT, HOST:PORT, 10.0.0.0/8:PORT, FIRST-LAST:PORT or *:PORT, \
             IPv6 in brackets; PORT may be 5432-5439 or *",
            "FILE:4:1: [[ignore]] is for every finding: say which, by `kind`, `endpoint`, `group`, `exe`, `script`, `user` or \
             `unit`",
        ],
    ),
    // Everything at once.
    (
        "[capture]\nring_bytes = 3\n[inventory]\nreconcile_s = \"soon\"\n[nonsense]\n[api]\nsocket = 7\n[privacy]\ncmdline =\n",
        &[
            "FILE:2:14: capture.ring_bytes is 3: it must be from 65536 to 67108864",
            "FILE:4:15: inventory.reconcile_s is \"soon\": it must be a whole number",
            "FILE:5:2: unknown section [nonsense]: there is [capture], [inventory], [detect], [privacy], [api], [history], [endpoint], [group], [ignore]",
            "FILE:7:10: api.socket is 7: it must be a text in quotes",
            "FILE:9:10: string values must be quoted, expected literal string",
        ],
    ),
    ("[capture]\n# \u{e9}\nbtf = \"\u{e9}\"\u{e9}\n", &["FILE:3:10: unexpected key or value, expected newline, `#`"]),
];
