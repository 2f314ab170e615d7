"""llamaflow-launchpad: starts the service, and makes the tokens that open it."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from launchpad.settings import PREFIX, Settings, from_environment


def main() -> int:
    args = parse_args()
    try:
        settings = from_environment()
    except ValidationError as error:
        for fault in error.errors():
            print(f"error: {PREFIX}{str(fault['loc'][0]).upper()}: {fault['msg']}", file=sys.stderr)
        return 64
    from sqlalchemy.exc import DatabaseError  # --help waits for none of it

    from launchpad.errors import ApiError

    try:
        return int(args.act(settings, args) or 0)
    except ApiError as error:
        said = error.message
    except OSError as error:
        said = f"{error.filename or settings.data}: {error.strerror}. {PREFIX}DATA says where the launchpad keeps its files: it must be able to write there."
    except DatabaseError as error:
        said = f"{settings.database}: {error.orig}."
    print(f"error: {said}", file=sys.stderr)
    return 64


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llamaflow-launchpad", description="Runs pipelines on this machine behind the API of the Seqera Platform.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_command = commands.add_parser("serve", help="start the service")
    serve_command.set_defaults(act=serve)
    token = commands.add_parser("token", help="create, list and revoke tokens").add_subparsers(required=True, metavar="COMMAND")
    create = token.add_parser("create", help="make a token, which is printed once")
    create.add_argument("--user", default="me", help="whose it is; made if there is no such user")
    create.add_argument("--name", default="default", help="what it is for")
    create.add_argument("--scope", choices=("read", "launch", "admin"), default="launch", help="what it may do (default: launch)")
    create.add_argument("--days", type=int, help="how long it is good for (default: for ever)")
    create.set_defaults(act=create_token)
    token.add_parser("list", help="show all tokens, not their secrets").set_defaults(act=list_tokens)
    revoke = token.add_parser("revoke", help="make a token useless")
    revoke.add_argument("id", type=int)
    revoke.set_defaults(act=revoke_token)
    return parser.parse_args()


def serve(settings: Settings, _: argparse.Namespace) -> int:
    import uvicorn

    from launchpad.app import configure_logging, create_app

    configure_logging()
    app = create_app(settings)
    app.state.runner.claim()
    print(f"LlamaFlow launchpad: http://{settings.host}:{settings.port}  (data in {settings.data})", flush=True)
    uvicorn.run(app, host=settings.host, port=settings.port, access_log=False, log_config=None, server_header=False, ws="none")
    return 0


def create_token(settings: Settings, args: argparse.Namespace) -> int:
    from launchpad import auth
    from launchpad.store import open_store

    if args.days is not None and args.days < 1:
        print("error: --days must be at least 1", file=sys.stderr)
        return 64
    with open_store(settings.database)() as session:
        _, secret = auth.create_token(session, args.user, args.name, args.scope, args.days)
    print(secret)
    return 0


def list_tokens(settings: Settings, _: argparse.Namespace) -> int:
    from sqlalchemy import select

    from launchpad.store import Token, User, open_store

    with open_store(settings.database)() as session:
        for token, user in session.execute(select(Token, User).join(User, User.id == Token.user_id).order_by(Token.id)):
            print(f"{token.id}\t{user.user_name}\t{token.name}\t{token.scope}\texpires {token.expires or 'never'}\tlast used {token.last_used or 'never'}")
    return 0


def revoke_token(settings: Settings, args: argparse.Namespace) -> int:
    from launchpad.store import Token, open_store

    with open_store(settings.database)() as session:
        token = session.get(Token, args.id)
        if token is None:
            print(f"error: there is no token {args.id}; llamaflow-launchpad token list shows those that there are", file=sys.stderr)
            return 64
        session.delete(token)
        session.commit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
