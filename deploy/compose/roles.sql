-- Who the processes are in the database: users who own nothing there. What they may do, `eyeline db upgrade` grants
-- (docs/backends/results-postgresql.md). For psql 14 or later, as an administrator; again does no harm.
\getenv password SERVICE_PASSWORD
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'eyeline_limited') THEN
        CREATE ROLE eyeline_limited;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'eyeline_service') THEN
        CREATE ROLE eyeline_service LOGIN NOINHERIT IN ROLE eyeline_limited;
    END IF;
END
$$;
ALTER ROLE eyeline_service PASSWORD :'password';
