"""How people ask for each function: wordings that hold for a value ("ticket 41") and for "that ticket".

A wording names every required parameter; one that also names an optional parameter is for calls
that set it.
"""

NOUNS = {
    "account_id": "account",
    "event_id": "event",
    "file_name": "file",
    "message_id": "message",
    "order_id": "order",
    "room": "room",
    "ticket_id": "ticket",
}

PHRASES = {
    # files
    "create_file": (
        "create a new file called {new_name}",
        "please start a file named {new_name} for me",
        "i need an empty file with the name {new_name}",
    ),
    "open_file": (
        "open {file_name} so that i can write",
        "please open up {file_name} for me now",
        "i want to work on {file_name}, open it",
    ),
    "write_file": (
        "write a line about {topic} into the open file",
        "add {topic} to the file that is open",
        "put some text about {topic} in the open file",
    ),
    "close_file": (
        "close the file that is open now",
        "i am done writing, close the open file",
        "please save and close the open file",
    ),
    "rename_file": (
        "rename {file_name}, the new name is {new_name}",
        "change the name of {file_name} to {new_name}",
        "from now on {file_name} should be called {new_name}",
    ),
    "share_file": (
        "share {file_name} with {person} please",
        "let {person} have a look at {file_name}",
        "give {person} the right to read {file_name}",
    ),
    "delete_file": (
        "delete {file_name}, nobody needs it",
        "please throw away {file_name} for good",
        "get rid of {file_name} for me",
    ),
    "list_files": (
        "show me the names of the files",
        "which files do we have right now?",
        "list the files that we have here",
        "list the {kind} files that we have",
        "show me the names of {kind} files",
    ),
    # messages
    "sign_in": (
        "sign in to the mail as {person}",
        "please use the mail of {person} and sign in",
        "start the mail, the user is {person}",
    ),
    "sign_out": (
        "sign out of the mail now please",
        "i am done with the mail, sign out",
        "leave the mail and sign the user out",
    ),
    "send_message": (
        "send {person} a new message about {topic}",
        "write to {person}, the subject is {topic}",
        "let {person} know about {topic} by mail",
        "send {person} a {priority} priority message about {topic}",
        "write to {person} about {topic} with {priority} priority",
    ),
    "reply_message": (
        "reply to {message_id} and talk about {topic}",
        "answer {message_id} with some words about {topic}",
        "write an answer about {topic} to {message_id}",
    ),
    "forward_message": (
        "forward {message_id} to {person} please",
        "pass {message_id} on to {person} by mail",
        "{person} should get {message_id} too, forward it",
    ),
    "read_message": (
        "read {message_id} and tell me who wrote it",
        "show me what is in {message_id} please",
        "i want to know what {message_id} says",
    ),
    "find_message": (
        "find the last message of {person} for me",
        "which message did we last get from {person}?",
        "look for the newest message with {person}",
    ),
    "delete_message": (
        "delete {message_id} from the mail please",
        "please remove {message_id} from the mail for good",
        "i do not need {message_id} in the mail, delete it",
    ),
    # tickets
    "create_ticket": (
        "create a ticket with the title {title}",
        "please report a new problem with {title} as a ticket",
        "i need a new ticket about {title}",
        "create a {priority} priority ticket about {title}",
        "report a new {title} problem as a ticket with {priority} priority",
    ),
    "find_ticket": (
        "find the ticket about {title} for me",
        "which ticket has the title {title}?",
        "look for the ticket that is about {title}",
    ),
    "find_owner": (
        "who is the owner of {ticket_id}?",
        "tell me who works on {ticket_id} right now",
        "find the person who has {ticket_id} please",
    ),
    "assign_ticket": (
        "assign {ticket_id} to {person} please",
        "{person} should work on {ticket_id} from now on",
        "make {person} the owner of {ticket_id}",
    ),
    "comment_ticket": (
        "add a comment about {topic} to {ticket_id}",
        "comment on {ticket_id} and talk about {topic}",
        "leave a note about {topic} on {ticket_id}",
    ),
    "close_ticket": (
        "close {ticket_id}, the work is done",
        "the problem is gone, please close {ticket_id}",
        "{ticket_id} is done, you can close it",
    ),
    "reopen_ticket": (
        "reopen {ticket_id}, the problem is back",
        "please open {ticket_id} again for me",
        "{ticket_id} was closed too soon, reopen it",
    ),
    "list_tickets": (
        "show me all the tickets we have to do",
        "which tickets are there for us to do?",
        "list the tickets that we need to work on",
        "list the tickets that are {kind} now",
        "show me all the {kind} tickets please",
    ),
    # orders
    "place_order": (
        "order {item}, we need {quantity} pieces",
        "please buy {quantity} pieces of {item} for us",
        "place an order of {quantity} pieces of {item}",
    ),
    "pay_order": (
        "pay for {order_id} now please",
        "please settle the bill for {order_id}",
        "the bill of {order_id} should be paid now",
    ),
    "ship_order": (
        "ship {order_id} as soon as you can",
        "please send out {order_id} right now",
        "{order_id} can go on its way, ship it",
    ),
    "cancel_order": (
        "cancel {order_id}, we do not need it",
        "please stop {order_id} and cancel it",
        "i do not want {order_id} any more, cancel it",
    ),
    "return_order": (
        "return {order_id} and get the money back",
        "send {order_id} back, we do not like it",
        "{order_id} was not right, please return it",
    ),
    "track_order": (
        "where is {order_id} right now?",
        "tell me the status of {order_id} please",
        "check how far {order_id} has come",
    ),
    "cheapest_item": (
        "which item in stock is the cheapest?",
        "tell me the cheapest thing that we sell",
        "find the item with the lowest price",
    ),
    "restock_item": (
        "restock {item} with {quantity} more pieces",
        "add {quantity} pieces of {item} to the stock",
        "{quantity} new pieces of {item} came, restock them",
    ),
    # calendar
    "create_event": (
        "create an event about {title} on {day}",
        "plan a new {title} event on {day}",
        "put a {title} event in the calendar for {day}",
    ),
    "find_event": (
        "find the event about {title} for me",
        "which event has the title {title}?",
        "look for the {title} event in the calendar",
    ),
    "find_day": (
        "on which day is {room} free?",
        "find the first day when {room} is free",
        "tell me when nobody is in {room}",
    ),
    "move_event": (
        "move {event_id}, it should be on {day}",
        "please change the day of {event_id} to {day}",
        "{event_id} has to take place on {day}, move it",
    ),
    "book_room": (
        "book {room} for {event_id} please",
        "{event_id} needs a place, take {room}",
        "let {event_id} take place in {room}",
    ),
    "invite_guest": (
        "invite {person} as a guest to {event_id}",
        "{person} wants to come to {event_id}, invite them",
        "add {person} to the guests of {event_id}",
    ),
    "cancel_event": (
        "cancel {event_id}, nobody can come",
        "please take {event_id} off the calendar",
        "{event_id} will not take place, cancel it",
    ),
    "list_events": (
        "which events are there on {day}?",
        "show me all the events on {day}",
        "list the events that take place on {day}",
    ),
    # accounts
    "open_account": (
        "open a new account for {person}",
        "{person} needs an account, please open one",
        "start an account in the name of {person}",
    ),
    "find_account": (
        "find the account of {person} for me",
        "which account is in the name of {person}?",
        "look for the account of {person} please",
    ),
    "check_balance": (
        "how much money is in {account_id}?",
        "check the balance of {account_id} please",
        "tell me what {account_id} has left",
    ),
    "deposit_money": (
        "deposit {amount} in {account_id} please",
        "put {amount} into {account_id} for me",
        "add {amount} to the balance of {account_id}",
    ),
    "withdraw_money": (
        "withdraw {amount} from {account_id} please",
        "take {amount} out of {account_id} for me",
        "i need {amount} in cash out of {account_id}",
    ),
    "transfer_money": (
        "transfer {amount} from {account_id} to {person}",
        "use {account_id} to pay {person} {amount}",
        "move {amount} out of {account_id} and over to {person}",
    ),
    "freeze_account": (
        "freeze {account_id} so that no money can leave",
        "please freeze {account_id} for now",
        "no money should leave {account_id}, freeze it",
    ),
    "release_account": (
        "release {account_id} so that money can leave again",
        "please release {account_id}, it is frozen",
        "{account_id} should not be frozen any more, release it",
    ),
}
