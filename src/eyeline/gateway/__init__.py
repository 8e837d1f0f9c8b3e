"""The HTTP door: uploads in, jobs, results, pictures, live events out.

`server.Gateway` is the role, `app.build_app` its routes. Nothing is imported here: who only looks at keys or addresses (the
supervisor, the command line) does not pay for all the routes.
"""
