"""A server on this machine that answers as the Hugging Face hub does."""
import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import constants

COMMIT = {'main': 'a' * 40, 'v1': 'b' * 40}


@contextmanager
def serve_hub(cache, monkeypatch):
    """Serve ``hub.files`` ((repository, revision, file) -> bytes) as the hub does, and take commits into them; an empty
    cache. ``hub.asked`` is what was asked, ``hub.read_only`` whether it takes none."""
    files, asked, wrong, branches = {}, [], set(), {'main'}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'
        read_only = False

        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, body):
            parts = self.path.split('?')[0].strip('/').split('/')
            org, name, _, revision, *path = parts if len(parts) > 4 else [''] * 5  # else: what it asks of a host
            branch = next((branch for branch, commit in COMMIT.items() if commit == revision), revision)
            key = f'{org}/{name}', branch, '/'.join(path)
            asked.append((self.command, *key))
            content = files.get(key)
            self.send_response(404 if content is None else 200)
            if content is None:
                known = any(repository == key[0] for repository, *_ in files)
                self.send_header('X-Error-Code', 'EntryNotFound' if known else 'RepoNotFound')
                if known:
                    self.send_header('X-Repo-Commit', COMMIT.get(branch, branch))
                content = b''
            else:
                etag = hashlib.sha256(content).hexdigest() if key not in wrong else '0' * 64
                self.send_header('ETag', f'"{etag}"')
                self.send_header('X-Repo-Commit', COMMIT[branch])
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_POST(self):
            body = self.rfile.read(int(self.headers['Content-Length'])).decode()
            parts = self.path.strip('/').split('/')
            asked.append(('POST', self.path))
            if self.read_only:
                self.reply(403, dict(error='no'))
            elif parts == ['api', 'repos', 'create']:
                made = json.loads(body)
                repository = f'{made["organization"]}/{made["name"]}' if 'organization' in made else made['name']
                if any(name == repository for name, *_ in files):
                    self.reply(409, dict(url=f'{address}/{repository}'))
                else:
                    self.reply(200, dict(url=f'{address}/{repository}'))
            elif 'branch' in parts:
                branches.add(parts[5])
                self.reply(200, {})
            elif parts[-1] not in branches and {'preupload', 'commit'} & set(parts):
                self.send_response(404)
                self.send_header('X-Error-Code', 'RevisionNotFound')
                self.send_header('Content-Length', '0')
                self.end_headers()
            elif 'preupload' in parts:
                self.reply(200, dict(files=[dict(path=file['path'], uploadMode='regular', shouldIgnore=False)
                                            for file in json.loads(body)['files']]))
            elif 'commit' in parts:
                for line in map(json.loads, body.splitlines()):
                    if line['key'] == 'file':
                        key = f'{parts[2]}/{parts[3]}', parts[5], line['value']['path']
                        files[key] = base64.b64decode(line['value']['content'])
                commit = COMMIT[parts[5]]
                self.reply(200, dict(success=True, commitOid=commit,
                                     commitUrl=f'{address}/{parts[2]}/{parts[3]}/commit/{commit}'))
            else:  # it looks at model cards
                self.reply(200, dict(errors=[], warnings=[]))

        def reply(self, status, content):
            content = json.dumps(content).encode()
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', address + '/{repo_id}/resolve/{revision}/{filename}')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    Handler.files, Handler.asked, Handler.wrong = files, asked, wrong
    try:
        yield Handler
    finally:
        server.shutdown()
        server.server_close()
