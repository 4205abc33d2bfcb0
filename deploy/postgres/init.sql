-- Runs once, when the database is made: a role for each service, which owns its schema and nothing else.
-- A service that is taken over can read its own tables, never the other's, and nothing of the server.
\set auth_password `cat /run/secrets/parley/auth-password`
\set rooms_password `cat /run/secrets/parley/rooms-password`
REVOKE ALL ON DATABASE parley FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE ROLE auth LOGIN PASSWORD :'auth_password';
CREATE ROLE rooms LOGIN PASSWORD :'rooms_password';
GRANT CONNECT ON DATABASE parley TO auth, rooms;
CREATE SCHEMA auth AUTHORIZATION auth;
CREATE SCHEMA rooms AUTHORIZATION rooms;
