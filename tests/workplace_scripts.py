"""The office's 48 functions by hand: states, calls in their order, and what each must return."""

from rods_jax.environments.workplace import vocabulary

CLASSES = ("Files", "Messages", "Tickets", "Orders", "Calendar", "Accounts")

STATES = {
    "Files": {
        "files": [
            {"file_name": "budget", "lines": ["audit"], "shared_with": []},
            {"file_name": "report", "lines": [], "shared_with": ["bob"]},
        ]
    },
    "Messages": {
        "messages": [
            {"message_id": 10, "person": "bob", "topic": "audit", "priority": "low", "state": "new"},
            {"message_id": 11, "person": "bob", "topic": "launch", "priority": "low", "state": "read"},
        ],
        "next_message_id": 50,
    },
    "Tickets": {
        "tickets": [
            {
                "ticket_id": 20, "title": "printer", "priority": "low", "status": "open", "owner": "",
                "comments": [],
            }
        ],
        "next_ticket_id": 60,
    },
    "Orders": {
        "stock": [{"item": "pens", "price": 2, "stock": 5}, {"item": "bags", "price": 3, "stock": 1}],
        "orders": [{"order_id": 30, "item": "bags", "quantity": 2, "amount": 6, "status": "paid"}],
        "next_order_id": 70,
    },
    "Calendar": {
        "events": [{"event_id": 40, "title": "launch", "day": "monday", "room": "north", "guests": []}],
        "next_event_id": 80,
    },
    "Accounts": {
        "accounts": [
            {"account_id": 15, "person": "alice", "balance": 40, "status": "active"},
            {"account_id": 16, "person": "bob", "balance": 0, "status": "frozen"},
        ],
        "next_account_id": 85,
    },
}  # fmt: skip

# class -> calls in order; a dict is the result of a call that succeeds, a string the error of one that fails
SCRIPTS = {
    "Files": [
        ("list_files", {}, {"file_names": ["budget", "report"]}),
        ("list_files", {"kind": "shared"}, {"file_names": ["report"]}),
        ("create_file", {"new_name": "report"}, "file report exists"),
        ("create_file", {"new_name": "survey"}, {"file_name": "survey"}),
        ("write_file", {"topic": "hiring"}, "no file is open"),
        ("close_file", {}, "no file is open"),
        ("open_file", {"file_name": "manual"}, "no file name manual"),
        ("open_file", {"file_name": "budget"}, {"lines": 1}),
        ("open_file", {"file_name": "report"}, "file budget is open"),
        ("write_file", {"topic": "hiring"}, {"lines": 2}),
        ("rename_file", {"file_name": "budget", "new_name": "survey"}, "file survey exists"),
        ("rename_file", {"file_name": "budget", "new_name": "payroll"}, {"file_name": "payroll"}),
        ("delete_file", {"file_name": "payroll"}, "file payroll is open"),
        ("close_file", {}, {"file_name": "payroll"}),
        ("share_file", {"file_name": "payroll", "person": "kate"}, {"shares": 1}),
        ("share_file", {"file_name": "payroll", "person": "kate"}, "kate has file payroll"),
        ("delete_file", {"file_name": "payroll"}, "file payroll is shared"),
        ("delete_file", {"file_name": "survey"}, {"files": 2}),
    ],
    "Messages": [
        ("sign_out", {}, "nobody is signed in"),
        ("send_message", {"person": "leo", "topic": "audit"}, "nobody is signed in"),
        ("reply_message", {"message_id": 10, "topic": "audit"}, "nobody is signed in"),
        ("forward_message", {"message_id": 10, "person": "leo"}, "nobody is signed in"),
        ("sign_in", {"person": "alice"}, {"person": "alice"}),
        ("sign_in", {"person": "leo"}, "alice is signed in"),
        ("send_message", {"person": "leo", "topic": "audit", "priority": "high"}, {"message_id": 50}),
        ("find_message", {"person": "leo"}, {"message_id": 50}),
        ("find_message", {"person": "bob"}, {"message_id": 11}),
        ("find_message", {"person": "kate"}, "no person kate"),
        ("delete_message", {"message_id": 10}, "message 10 is new"),
        ("read_message", {"message_id": 10}, {"person": "bob", "topic": "audit"}),
        ("read_message", {"message_id": 12}, "no message id 12"),
        ("reply_message", {"message_id": 10, "topic": "review"}, {"person": "bob"}),
        ("forward_message", {"message_id": 10, "person": "kate"}, {"topic": "audit"}),
        ("read_message", {"message_id": 52}, {"person": "kate", "topic": "audit"}),
        ("delete_message", {"message_id": 10}, {"messages": 4}),
        ("sign_out", {}, {"person": "alice"}),
    ],
    "Tickets": [
        ("create_ticket", {"title": "network", "priority": "high"}, {"ticket_id": 60}),
        ("create_ticket", {"title": "printer"}, {"ticket_id": 61}),
        ("find_ticket", {"title": "printer"}, {"ticket_id": 61}),
        ("find_ticket", {"title": "safety"}, "no title safety"),
        ("find_owner", {"ticket_id": 20}, "ticket 20 has no owner"),
        ("close_ticket", {"ticket_id": 20}, "ticket 20 has no owner"),
        ("assign_ticket", {"ticket_id": 20, "person": "emma"}, {"person": "emma"}),
        ("assign_ticket", {"ticket_id": 20, "person": "emma"}, "emma has ticket 20"),
        ("find_owner", {"ticket_id": 20}, {"person": "emma"}),
        ("comment_ticket", {"ticket_id": 20, "topic": "audit"}, {"comments": 1}),
        ("reopen_ticket", {"ticket_id": 20}, "ticket 20 is open"),
        ("close_ticket", {"ticket_id": 20}, {"status": "closed"}),
        ("close_ticket", {"ticket_id": 20}, "ticket 20 is closed"),
        ("comment_ticket", {"ticket_id": 20, "topic": "audit"}, "ticket 20 is closed"),
        ("list_tickets", {}, {"ticket_ids": [60, 61]}),
        ("list_tickets", {"kind": "closed"}, {"ticket_ids": [20]}),
        ("reopen_ticket", {"ticket_id": 20}, {"status": "open"}),
    ],
    "Orders": [
        ("cheapest_item", {}, {"item": "pens"}),
        ("place_order", {"item": "pens", "quantity": 6}, "stock of pens is 5"),
        ("place_order", {"item": "pens", "quantity": 0}, "quantity must be positive"),
        ("place_order", {"item": "pens", "quantity": 5}, {"order_id": 70, "amount": 10}),
        ("cheapest_item", {}, {"item": "bags"}),
        ("place_order", {"item": "bags", "quantity": 1}, {"order_id": 71, "amount": 3}),
        ("cheapest_item", {}, "stock is empty"),
        ("restock_item", {"item": "lamps", "quantity": 1}, "no item lamps"),
        ("restock_item", {"item": "pens", "quantity": -1}, "quantity must be positive"),
        ("ship_order", {"order_id": 71}, "order 71 is placed"),
        ("pay_order", {"order_id": 71}, {"status": "paid"}),
        ("pay_order", {"order_id": 71}, "order 71 is paid"),
        ("cancel_order", {"order_id": 71}, "order 71 is paid"),
        ("cancel_order", {"order_id": 70}, {"status": "canceled"}),
        ("restock_item", {"item": "pens", "quantity": 2}, {"stock": 7}),
        ("return_order", {"order_id": 30}, "order 30 is paid"),
        ("ship_order", {"order_id": 30}, {"status": "shipped"}),
        ("track_order", {"order_id": 30}, {"status": "shipped"}),
        ("track_order", {"order_id": 31}, "no order id 31"),
        ("return_order", {"order_id": 30}, {"amount": 6}),
        ("restock_item", {"item": "bags", "quantity": 1}, {"stock": 3}),
    ],
    "Calendar": [
        ("create_event", {"title": "review", "day": "monday"}, {"event_id": 80}),
        ("book_room", {"event_id": 80, "room": "up"}, "room must be one of north, south, east, west"),
        ("find_event", {"title": "review"}, {"event_id": 80}),
        ("find_event", {"title": "hiring"}, "no title hiring"),
        ("find_day", {"room": "north"}, {"day": "tuesday"}),
        ("book_room", {"event_id": 80, "room": "north"}, "room north is taken on monday"),
        ("move_event", {"event_id": 80, "day": "tuesday"}, {"day": "tuesday"}),
        ("move_event", {"event_id": 80, "day": "tuesday"}, "event 80 is on tuesday"),
        ("book_room", {"event_id": 80, "room": "north"}, {"room": "north"}),
        ("move_event", {"event_id": 80, "day": "monday"}, "room north is taken on monday"),
        ("invite_guest", {"event_id": 80, "person": "jack"}, {"guests": 1}),
        ("invite_guest", {"event_id": 80, "person": "jack"}, "jack is invited"),
        ("list_events", {"day": "tuesday"}, {"event_ids": [80]}),
        *(
            call
            for i, day in enumerate(vocabulary.DAYS[2:])
            for call in (
                ("create_event", {"title": "audit", "day": day}, {"event_id": 81 + i}),
                ("book_room", {"event_id": 81 + i, "room": "north"}, {"room": "north"}),
            )
        ),
        ("find_day", {"room": "north"}, "room north is never free"),
        ("cancel_event", {"event_id": 80}, {"events": 4}),
        ("cancel_event", {"event_id": 80}, "no event id 80"),
    ],
    "Accounts": [
        ("open_account", {"person": "bob"}, "bob has an account"),
        ("open_account", {"person": "irene"}, {"account_id": 85}),
        ("find_account", {"person": "irene"}, {"account_id": 85}),
        ("find_account", {"person": "leo"}, "no person leo"),
        ("check_balance", {"account_id": 15}, {"amount": 40}),
        ("check_balance", {"account_id": 99}, "no account id 99"),
        ("deposit_money", {"account_id": 16, "amount": 5}, {"balance": 5}),
        ("deposit_money", {"account_id": 16, "amount": 0}, "amount must be positive"),
        ("withdraw_money", {"account_id": 16, "amount": 5}, "account 16 is frozen"),
        ("withdraw_money", {"account_id": 15, "amount": 41}, "balance is 40"),
        ("withdraw_money", {"account_id": 15, "amount": 10}, {"balance": 30}),
        ("transfer_money", {"account_id": 15, "person": "irene", "amount": 30}, {"balance": 0}),
        ("transfer_money", {"account_id": 15, "person": "leo", "amount": 1}, "balance is 0"),
        ("transfer_money", {"account_id": 85, "person": "irene", "amount": 1}, "irene owns account 85"),
        ("transfer_money", {"account_id": 85, "person": "leo", "amount": 1}, "no person leo"),
        ("check_balance", {"account_id": 85}, {"amount": 30}),
        ("release_account", {"account_id": 85}, "account 85 is active"),
        ("freeze_account", {"account_id": 85}, {"status": "frozen"}),
        ("freeze_account", {"account_id": 85}, "account 85 is frozen"),
        ("release_account", {"account_id": 85}, {"status": "active"}),
    ],
}
# whenever the arguments fit the schema
ALWAYS_SUCCEED = {"create_event", "create_ticket", "list_tickets", "list_files", "list_events"}
