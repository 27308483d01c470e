"""What SECURITY.md promises: each sentence has its tests, or is no promise of this program's.

A sentence is named by words that stand in it. A new one fails here until it is in one of the two lists.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")

PROMISES = {
    "What they can do is bounded": "test_hostile.py::test_an_aikitfile_costs_no_more_than_its_size_allows",
    "Nothing of an aikitfile becomes Nix or shell code": (
        "test_end_to_end.py::test_texts_arrive_byte_for_byte",
        "test_gen.py::test_texts_travel_as_they_are",
        "flakes/test_write.py::test_a_reference_that_is_none_cannot_become_nix_code",
        "flakes/test_ci.py::test_what_is_more_than_text_is_refused",
    ),
    "Files are read only where they are regular": (
        "base/test_files.py::test_what_is_no_regular_file_is_never_read",
        "base/test_files.py::test_a_file_is_read_up_to_its_limit",
        "test_hostile.py::test_only_regular_files_are_read_and_no_more_than_an_aikitfile_has",
        "test_hostile.py::test_a_gguf_costs_no_more_than_its_size_allows",
        "base/test_redact.py::test_a_text_costs_no_more_than_its_size",
        "engines/llama_server/test_gojinja.py::test_hostile_templates_are_refused",
        "http/test_client.py::test_too_long_an_answer_is_not_read",
        "http/test_client.py::test_a_packed_answer_is_unpacked_within_the_limit",
        "http/test_connection.py::test_an_answer_that_never_ends_ends",
        "http/test_connection.py::test_a_drip_over_tls_ends",
        "debian/test_archive.py::test_nothing_that_a_mirror_says_has_no_end",
        "models/test_download.py::test_an_endless_body_ends",
    ),
    "What is printed is escaped where it is printed": (
        "test_input_properties.py::test_what_is_printed_is_one_line_of_printable_text",
        "base/test_console.py::test_nothing_of_a_file_steers_the_terminal",
        "base/test_console.py::test_nothing_of_a_name_steers_the_terminal",
    ),
    "What is meant for programs": "base/test_console.py::test_what_programs_read_is_exact",
    "A path in the image is below": "test_input_properties.py::test_every_name_lands_on_a_path_of_its_own_below_models",
    "absolute paths are refused": "sources/test_local.py::test_a_path_that_leads_elsewhere_is_refused",
    "A link that leads out of the aikitfile's": (
        "sources/test_local.py::test_a_link_out_of_the_folder_publishes_nothing_unseen",
        "models/test_project.py::test_only_a_link_out_of_the_folder_whose_bytes_nobody_pinned_is_warned_of",
        "models/test_project.py::test_what_not_everybody_may_read_is_published_by_no_link",
        "models/test_project.py::test_what_lies_in_a_private_folder_is_published_by_no_link",
    ),
    "Of a bundle (`unbundle`)": (
        "flakes/test_unbundle.py::test_what_is_not_named_is_not_written",
        "flakes/test_unbundle.py::test_no_file_of_another_program_is_written",
        "flakes/test_unbundle.py::test_what_is_damaged_is_named_and_not_imported",
        "flakes/test_unbundle.py::test_no_other_bytes_come_under_the_name_of_a_model",
        "flakes/test_bundle.py::test_what_was_built_is_trusted_by_signature_only",
        "flakes/test_unbundle.py::test_of_a_signed_bundle_nothing_is_written_before_the_signature_is_right",
    ),
    "What aikit.lock calls a model is only repeated": (
        "models/test_agreement.py::test_what_does_not_agree_is_refused",
        "models/test_agreement.py::test_nobody_repeats_a_name_that_was_not_checked",
        "models/test_agreement.py::test_an_entry_of_no_model_says_nothing_of_a_file_of_one",
        "flakes/test_materials.py::test_the_lock_is_the_one_that_the_flake_was_made_from",
    ),
    "Licence and base models are an origin's own word": (
        "attest/test_ingestion.py::test_a_model_of_hugging_face",
        "attest/test_sbom.py::test_a_model_is_a_component_with_its_origin",
    ),
    "The layer, BLAKE3 and GGUF header": (
        "models/test_seen.py::test_a_claim_that_is_another_than_the_bytes_is_refused",
        "models/test_seen.py::test_a_claim_of_a_header_is_compared_too",
        "models/test_seen.py::test_a_download_is_compared_as_it_comes",
        "models/test_seen.py::test_a_layer_that_the_registry_has_is_not_pushed_for_another",
    ),
    "What stands beside an image in a registry": (
        "attest/test_policy.py::test_statements_beside_the_image_count",
        "attest/test_policy.py::test_nobody_counts_twice_or_unsigned",
        "attest/test_sign.py::test_two_builders_with_one_digest_pass_and_a_tampered_one_fails",
        "attest/test_reproduce.py::test_a_witness_is_heard_only_with_its_own_key",
    ),
    "Tokens and logins go to the Hugging Face": (
        "sources/test_huggingface_token.py::test_a_gated_model_with_the_users_token",
        "registry/test_client.py::test_a_login_is_sent_to_no_address_that_is_unsafe_or_none",
        "registry/test_client.py::test_a_login_leaves_a_registry_without_tls_for_no_other_host",
    ),
    "They go nowhere else": (
        "sources/test_huggingface_token.py::test_a_gated_model_with_the_users_token",
        "http/test_address.py::test_credentials_stay_with_their_host",
        "models/test_download.py::test_a_redirect_to_another_host_takes_no_credentials",
        "sources/test_huggingface_token.py::test_a_lock_cannot_send_the_token_elsewhere",
        "registry/test_credentials.py::test_a_lock_cannot_send_a_login_elsewhere",
        "models/test_download.py::test_no_secret_is_left_or_shown",
        "registry/test_client.py::test_a_token_is_never_shown",
        "http/test_address.py::test_no_message_holds_a_secret",
        "base/test_process.py::test_a_secret_is_not_shown",
    ),
    "No redirect from https to http": "http/test_connection.py::test_nothing_is_asked_for_where_encryption_ends",
    "A registry on this machine is believed": (
        "registry/test_client.py::test_a_registry_on_this_machine_that_speaks_tls",
        "registry/test_client.py::test_only_this_machine_is_asked_in_plain_text",
    ),
    "Tars and JSON from elsewhere are read strictly": (
        "base/test_tar.py::test_what_readers_understand_differently_is_refused",
        "base/test_typed_json.py::test_a_key_that_is_there_twice_is_refused",
        "test_reader_properties.py::test_a_tar_that_is_read_is_read_alike",
        "attest/test_verify.py::test_json_that_readers_understand_differently_is_refused",
        "attest/test_verify.py::test_a_forged_archive_is_refused",
        "image/test_archive.py::test_an_index_has_the_same_layers_under_the_same_name",
        "image/test_blobs.py::test_an_index_that_readers_understand_differently_is_refused",
    ),
    "Every byte of an image has a hash": (
        "models/test_download.py::test_a_wrong_byte_is_named_and_only_that_file_thrown_away",
        "test_end_to_end.py::test_a_url_with_other_bytes_is_refused",
        "debian/test_archive.py::test_debs_come_from_the_first_mirror_that_has_them_and_are_what_the_lock_says",
    ),
    "`debian-lock` believes": (
        "debian/test_archive.py::test_a_release_of_another_signer_is_refused",
        "debian/test_archive.py::test_an_unsigned_release_is_refused",
    ),
    "from then on another file is refused": (
        "models/test_fetch.py::test_a_wrong_byte_reaches_no_store",
        "sources/test_huggingface_lock.py::test_a_branch_that_moves_changes_nothing_until_the_lock_is_updated",
    ),
    "the flake has a folder of its own": (
        "test_isolation.py::test_nothing_that_lies_beside_the_flake_gets_into_the_store",
        "flakes/test_folder.py::test_nix_gets_the_flakes_own_files_and_nothing_else",
    ),
    "the flake's check starts the server": "test_end_to_end.py::test_the_flakes_own_check_passes",
    "`gen` and `build` warn": (
        "test_gen.py::test_builds_outside_of_a_sandbox_are_warned_of",
        "nix/test_command.py::test_builds_outside_of_a_sandbox_are_warned_of",
    ),
    "Their hash is checked afterwards": "test_end_to_end.py::test_a_url_with_other_bytes_is_refused",
    "The Nix store is readable for every user": "test_end_to_end.py::test_any_user_can_read_everything",
    "URLs with passwords or tokens are refused": (
        "sources/test_http.py::test_a_url_with_a_secret_is_refused_early",
        "flakes/test_write.py::test_a_secret_does_not_enter_the_flake",
        "registry/test_credentials.py::test_a_login_is_found_where_its_tool_keeps_it",
        "test_input_properties.py::test_a_hidden_secret_is_never_shown",
    ),
    "`aikit-nix version` says the dates": "flakes/test_ages.py::test_check_and_gen_say_it_and_the_version_has_the_dates",
    "The first and the fourth are sent to the built image": (
        "nixpkgs/test_localai_image.py::test_a_schema_that_refers_to_itself_ends_no_server",
        "nixpkgs/test_localai_image.py::test_a_key_is_asked_for_on_every_path",
    ),
    "Scanners read an image's Debian packages": (
        "image/test_scanners.py::test_grype_finds_a_vulnerability_of_a_package_in_the_image",
        "attest/test_sbom.py::test_what_nixpkgs_compiles_is_named_by_its_sources",
        "flakes/test_ci.py::test_every_week_the_pins_are_renewed",
    ),
    "It needs no root, no writable file system": (
        "nixpkgs/test_localai_image.py::test_it_asks_for_nothing_and_writes_below_tmp_only",
        "image/test_health.py::test_podman_says_whether_the_server_is_well",
        "image/test_sandbox.py::test_it_can_do_nothing_but_serve",
    ),
    "`LOCALAI_API_KEY` for LocalAI": "nixpkgs/test_localai_image.py::test_a_key_is_asked_for_on_every_path",
}

# What others do, what is asked of the reader, and what heads a list
OF_OTHERS = (
    "Of each sentence from here on",
    "aikitfiles, file names, model files",
    "So downloads need not be encrypted",
    "Nix, the C library, and the programs",
    "Nix's own, `gpgv`, `cosign`",
    "Whoever wrote the pins",
    "What an origin says when a model is pinned",
    "takes Hugging Face's or a registry's word",
    "What lies beside an aikitfile stays there",
    "Models are in the store",
    "A flake is code",
    "Generate your own from their aikitfile",
    "a build sees the machine's files and network",
    "Where the kernel offers no sandbox",
    "Downloads (fixed-output derivations) have the network",
    "Put no secret into them",
    "The server parses the model",
    "ask for no password unless you set one",
    "Anything more, put in front of it",
)


def sentences() -> list[str]:
    """Those of all sections but the first; tables and commands are none."""
    sections = TEXT.partition("## What is not trusted\n")[2]
    prose = re.sub(r"^(?:\||    |#).*\n", "\n", sections, flags=re.MULTILINE)
    paragraphs = [" ".join(each.split()) for each in re.split(r"\n\n|\n- ", prose)]
    return [each for one in paragraphs for each in re.split(r"(?<=[.:]) (?=[A-Z`])", one) if each]


@lru_cache
def functions(file: Path) -> frozenset[str]:
    return frozenset(each.name for each in ast.parse(file.read_bytes()).body if isinstance(each, ast.FunctionDef))


@pytest.mark.parametrize("sentence", sentences())
def test_every_promise_has_its_tests(sentence: str) -> None:
    assert any(words in sentence for words in (*PROMISES, *OF_OTHERS))


@pytest.mark.parametrize("words", [*PROMISES, *OF_OTHERS])
def test_the_lists_say_what_is_said(words: str) -> None:
    assert sum(words in sentence for sentence in sentences()) == 1


@pytest.mark.parametrize("words", PROMISES)
def test_the_tests_are_there(words: str) -> None:
    named = PROMISES[words]
    for each in (named,) if isinstance(named, str) else named:
        file, name = each.split("::")
        assert name in functions(TESTS / file), each
