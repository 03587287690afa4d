import pytest
from sqlalchemy import make_url

from settings.addresses import read_database, read_redis
from settings.connection_strings import npgsql_to_url, stackexchange_to_url

FULL = (
    "Host=db.example;Port=5433;Database=milvaion;Username=svc;Password='a;b''c';"
    "SSL Mode=VerifyFull;Root Certificate=/etc/ca.pem;Search Path=jobs, public;Timeout=15;"
    "Command Timeout=300;Maximum Pool Size=20;Include Error Detail=true;Application Name=x"
)


def test_an_npgsql_string_becomes_a_url() -> None:
    url = make_url(read_database(npgsql_to_url(FULL)).reveal())
    assert (url.host, url.port, url.database) == ("db.example", 5433, "milvaion")
    assert (url.username, url.password) == ("svc", "a;b'c")
    assert dict(url.query) == {
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ca.pem",
        "connect_timeout": "15",
        "options": "-csearch_path=jobs,\\ public",
    }


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("host=db", "postgresql://db/"),
        ("SERVER=db;DB=jobs;User Id=me;Pwd=x;", "postgresql://me:x@db/jobs"),
        ("Server=db;Database=jobs;UserName=me", "postgresql://me@db/jobs"),
        ("Host=db:6000;Database=my jobs", "postgresql://db:6000/my%20jobs"),
        ("Host=::1;Database=jobs;Port=5", "postgresql://[::1]:5/jobs"),
        ("Host=db;Host=other;Database=jobs", "postgresql://other/jobs"),
        (
            "Host=/run/postgresql;Port=5433;Database=jobs",
            "postgresql:///jobs?host=%2Frun%2Fpostgresql&port=5433",
        ),
        ("Host=db;;Database=jobs; ", "postgresql://db/jobs"),
        ("Host=db;Password=a=b", "postgresql://:a%3Db@db/"),
        ("Host=db;SslMode=disable", "postgresql://db/?sslmode=disable"),
        ("postgresql://me@db/jobs", "postgresql://me@db/jobs"),
    ],
)
def test_npgsql_keys_have_aliases_and_know_no_case(text: str, meant: str) -> None:
    assert npgsql_to_url(text) == meant
    assert read_database(npgsql_to_url(text)).reveal() == meant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Database=jobs", "names no Host"),
        ("Host=a,b;Database=jobs", "several hosts"),
        ("Hots=db", 'did you mean "host"'),
        ("Host=db;Pasword=s3cret", 'did you mean "password"'),
        ("Host=db;Password=s3c;ret", "in quotes"),
        ("Host=db;SSL Mode=sometimes", "SSL Mode"),
        ("nothing at all", "no list of keys"),
    ],
)
def test_an_npgsql_string_that_leads_nowhere_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        npgsql_to_url(text)
    assert "s3c" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("cache", "redis://cache:6379/0"),
        ("cache:7000", "redis://cache:7000/0"),
        ("cache:6379,password=p@=w,defaultDatabase=2", "redis://:p%40%3Dw@cache:6379/2"),
        ("cache,user=me,password=pw,ssl=True", "rediss://me:pw@cache:6380/0"),
        ("abortConnect=false,cache:1,connectRetry=3,$KEYS=", "redis://cache:1/0"),
        ("[::1]:6379", "redis://[::1]:6379/0"),
        ("unix:/run/redis.sock,defaultDatabase=3", "unix:///run/redis.sock?db=3"),
        ("redis://cache/1", "redis://cache/1"),
    ],
)
def test_a_stackexchange_string_becomes_a_url(text: str, meant: str) -> None:
    assert stackexchange_to_url(text) == meant
    assert read_redis(stackexchange_to_url(text)).reveal() == meant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:1,b:2", "names 2 servers"),
        ("password=s3cret", "names 0 servers"),
        ("cache,serviceName=mymaster", "Sentinel"),
        ("cache,tunnel=http:proxy:1", "tunnel"),
        ("cache,pasword=s3cret", 'did you mean "password"'),
        ("cache,defaultDatabase=two", "defaultDatabase"),
        ("cache,ssl=perhaps", "neither true nor false"),
    ],
)
def test_a_stackexchange_string_that_leads_elsewhere_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        stackexchange_to_url(text)
    assert "s3cret" not in str(refused.value)
