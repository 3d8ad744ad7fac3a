"""Registered models, versions, stages, aliases, tags (T5)."""

import pytest
from mlflow.exceptions import MlflowException


def refused(call, code="INVALID_PARAMETER_VALUE"):
    with pytest.raises(MlflowException) as raised:
        call()
    assert raised.value.error_code == code, raised.value


@pytest.fixture
def model(client, unique):
    return client.create_registered_model(unique("model"), tags={"team": "risk"}, description="first")


def version(client, model, run=None, **kwargs):
    source = f"runs:/{run.info.run_id}/model" if run else "s3://bucket/model"
    return client.create_model_version(model.name, source, run_id=run.info.run_id if run else None, **kwargs)


def test_models(client, model, unique):
    found = client.get_registered_model(model.name)
    assert (found.name, found.description, found.tags) == (model.name, "first", {"team": "risk"})
    assert found.creation_timestamp == found.last_updated_timestamp > 0
    refused(lambda: client.create_registered_model(model.name), "RESOURCE_ALREADY_EXISTS")
    client.update_registered_model(model.name, "second")
    assert client.get_registered_model(model.name).description == "second"
    client.set_registered_model_tag(model.name, "a", "b")
    client.delete_registered_model_tag(model.name, "team")
    assert client.get_registered_model(model.name).tags == {"a": "b"}
    renamed = unique("renamed")
    client.rename_registered_model(model.name, renamed)
    refused(lambda: client.get_registered_model(model.name), "RESOURCE_DOES_NOT_EXIST")
    assert client.get_registered_model(renamed).tags == {"a": "b"}
    client.delete_registered_model(renamed)
    refused(lambda: client.get_registered_model(renamed), "RESOURCE_DOES_NOT_EXIST")
    client.create_registered_model(renamed)  # a deleted name is free


def test_versions(client, model, run):
    one = version(client, model, run, tags={"k": "v"}, description="d")
    two = version(client, model, run)
    assert (one.version, two.version) in (("1", "2"), (1, 2))
    found = client.get_model_version(model.name, "1")
    assert (found.run_id, found.status, found.current_stage, found.tags, found.description) == (run.info.run_id, "READY", "None", {"k": "v"}, "d")
    assert found.source == f"runs:/{run.info.run_id}/model"
    client.update_model_version(model.name, "1", "new words")
    client.set_model_version_tag(model.name, "1", "approved-by", "ada")
    found = client.get_model_version(model.name, "1")
    assert (found.description, found.tags) == ("new words", {"k": "v", "approved-by": "ada"})
    client.delete_model_version_tag(model.name, "1", "k")
    assert client.get_model_version(model.name, "1").tags == {"approved-by": "ada"}
    client.delete_model_version(model.name, "2")
    refused(lambda: client.get_model_version(model.name, "2"), "RESOURCE_DOES_NOT_EXIST")
    assert str(version(client, model, run).version) == "3", "numbers are never used twice"
    refused(lambda: client.get_model_version(model.name, "99"), "RESOURCE_DOES_NOT_EXIST")
    refused(lambda: client.get_model_version("no such model", "1"), "RESOURCE_DOES_NOT_EXIST")
    refused(lambda: client.create_model_version("no such model", "s3://bucket/x"), "RESOURCE_DOES_NOT_EXIST")


def test_a_rename_takes_versions_and_aliases_along(client, model, run, unique):
    version(client, model, run)
    client.set_registered_model_alias(model.name, "champion", "1")
    name = unique("moved")
    client.rename_registered_model(model.name, name)
    assert client.get_model_version_by_alias(name, "champion").name == name
    assert [v.name for v in client.search_model_versions(f"name = '{name}'")] == [name]


def test_stages(client, model, run):
    for _ in range(3):
        version(client, model, run)
    client.transition_model_version_stage(model.name, "1", "production")
    client.transition_model_version_stage(model.name, "2", "Production")
    client.transition_model_version_stage(model.name, "3", "STAGING")
    assert client.get_model_version(model.name, "1").current_stage == "Production"
    latest = {v.current_stage: str(v.version) for v in client.get_latest_versions(model.name)}
    assert latest == {"Production": "2", "Staging": "3"}
    client.transition_model_version_stage(model.name, "3", "Production", archive_existing_versions=True)
    assert [client.get_model_version(model.name, v).current_stage for v in "123"] == ["Archived", "Archived", "Production"]
    assert [str(v.version) for v in client.get_latest_versions(model.name, ["production"])] == ["3"]
    refused(lambda: client.transition_model_version_stage(model.name, "1", "Nonsense"))


def test_aliases(client, model, run):
    version(client, model, run), version(client, model, run)
    client.set_registered_model_alias(model.name, "champion", "1")
    client.set_registered_model_alias(model.name, "next", "1")
    assert sorted(client.get_model_version(model.name, "1").aliases) == ["champion", "next"]
    client.set_registered_model_alias(model.name, "champion", "2")
    assert str(client.get_model_version_by_alias(model.name, "champion").version) == "2"
    assert {a: str(v) for a, v in client.get_registered_model(model.name).aliases.items()} == {"champion": "2", "next": "1"}
    client.delete_registered_model_alias(model.name, "next")
    refused(lambda: client.get_model_version_by_alias(model.name, "next"))
    refused(lambda: client.set_registered_model_alias(model.name, "a", "77"), "RESOURCE_DOES_NOT_EXIST")
    for bad in ("latest", "v5", "V12", "has space", "", "a/b", "x" * 256):
        refused(lambda: client.set_registered_model_alias(model.name, bad, "1"))
    client.delete_model_version(model.name, "2")
    assert client.get_registered_model(model.name).aliases == {}


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", None])
def test_bad_names(api, name):
    assert api("POST", "registered-models/create", name=name).status_code == 400


def test_search_models(client, unique):
    stem = unique("sm")
    for n in range(5):
        client.create_registered_model(f"{stem}-{n}", tags={"n": str(n)} if n else None)

    def check(expect, filter, **kwargs):
        found = client.search_registered_models(filter, **kwargs)
        assert "".join(m.name.removeprefix(stem + "-") for m in found) == expect, (filter, kwargs)
        return found

    check("01234", f"name LIKE '{stem}-%'")
    check("43210", f"name ILIKE '{stem.upper()}-%'", order_by=["name DESC"])
    check("2", f"name = '{stem}-2'")
    check("134", f"name LIKE '{stem}-%' AND tags.n != '2'")
    check("2", f"name LIKE '{stem}-%' AND tags.n = '2'")
    check("01234", f"name LIKE '{stem}-%'", order_by=["last_updated_timestamp ASC", "name"])
    page = check("012", f"name LIKE '{stem}-%'", max_results=3)
    check("34", f"name LIKE '{stem}-%'", max_results=3, page_token=page.token)
    for bad in ("name > 'a'", "run_id = 'x'", "nonsense", "name = 'a' OR name = 'b'"):
        refused(lambda: client.search_registered_models(bad))
    refused(lambda: client.search_registered_models(order_by=["nonsense"]))


def test_prompts_do_not_show_as_models(client, unique, api):
    name = unique("prompt")
    api("POST", "registered-models/create", 200, name=name, tags=[{"key": "mlflow.prompt.is_prompt", "value": "true"}])
    assert client.search_registered_models(f"name = '{name}'") == []


def test_search_versions(client, model, run, unique):
    for n in range(4):
        version(client, model, run if n % 2 else None, tags={"n": str(n)})

    def check(expect, filter, **kwargs):
        found = client.search_model_versions(f"name = '{model.name}'{filter}", **kwargs)
        assert "".join(str(v.version) for v in found) == expect, (filter, kwargs)

    check("4321", "")
    check("1234", "", order_by=["version_number ASC"])
    check("42", f" AND run_id = '{run.info.run_id}'")
    check("3", " AND tags.n = '2'")
    check("43", " AND version_number > 2")
    check("42", f" AND source_path = 'runs:/{run.info.run_id}/model'")
    assert len(client.search_model_versions(f"run_id IN ('{run.info.run_id}')")) == 2
    for bad in ("nonsense = 'a'", "version_number LIKE '1'", "name"):
        refused(lambda: client.search_model_versions(bad))


def test_latest_versions_in_a_model(client, model, run):
    version(client, model, run), version(client, model, run)
    found = client.get_registered_model(model.name)
    assert [(v.current_stage, str(v.version)) for v in found.latest_versions] == [("None", "2")]


def test_download_uri(client, model, run):
    version(client, model, run)
    assert client.get_model_version_download_uri(model.name, "1") == f"runs:/{run.info.run_id}/model"


def test_deleting_a_model_takes_its_versions(client, model, run):
    version(client, model, run)
    client.delete_registered_model(model.name)
    assert client.search_model_versions(f"name = '{model.name}'") == []
    again = client.create_registered_model(model.name)
    assert again.aliases == {}
