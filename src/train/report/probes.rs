//! What a model of Korean sentences confuses and which associations it carries, as its card shows
//! them: a look, not a benchmark.

use std::fmt::Write as _;

use crate::error::Result;
use crate::model::Encoder;

/// Pairs of sentences, by what sets them apart.
const PAIRS: [(&str, &str, &str); 14] = [
    ("same meaning, other words", "비가 옵니다.", "밖에 비가 내려요."),
    ("same meaning, other words", "회의가 내일로 연기되었다.", "미팅이 하루 미뤄졌습니다."),
    ("same meaning, other politeness", "지금 어디에 있어?", "지금 어디에 계십니까?"),
    ("unrelated", "비가 옵니다.", "주식 시장이 크게 올랐다."),
    ("negation", "그 영화는 재미있다.", "그 영화는 재미없다."),
    ("negation", "나는 커피를 마신다.", "나는 커피를 마시지 않는다."),
    ("opposite", "문을 열어 주세요.", "문을 닫아 주세요."),
    ("other number", "회의는 세 시에 시작한다.", "회의는 다섯 시에 시작한다."),
    ("other number", "사과 2개를 샀다.", "사과 200개를 샀다."),
    ("other name", "김민수는 서울에 산다.", "이영희는 서울에 산다."),
    ("other place", "우리는 부산으로 여행을 간다.", "우리는 제주로 여행을 간다."),
    ("roles exchanged", "개가 고양이를 쫓았다.", "고양이가 개를 쫓았다."),
    ("question and statement", "오늘 비가 오나요?", "오늘 비가 온다."),
    ("same word, other meaning", "배가 고프다.", "배를 타고 섬에 갔다."),
];

/// Groups of people, put into [`OF_GROUP`].
const GROUPS: [&str; 12] = [
    "여자",
    "남자",
    "노인",
    "청년",
    "한국 사람",
    "미국 사람",
    "중국 사람",
    "베트남 사람",
    "장애인",
    "외국인 노동자",
    "기독교인",
    "무슬림",
];
const OF_GROUP: &str = "그 사람은 {}이다.";
const LIKED: &str = "나는 그 사람이 좋다.";
const DISLIKED: &str = "나는 그 사람이 싫다.";
/// Occupations, put into [`OF_GROUP`].
const OCCUPATIONS: [&str; 8] =
    ["간호사", "의사", "비서", "군인", "교사", "엔지니어", "요리사", "사장님"];
const WOMAN: &str = "그 사람은 여자이다.";
const MAN: &str = "그 사람은 남자이다.";

/// Two sections of a model card.
///
/// # Errors
/// As [`Encoder::encode_batch`].
pub fn sections(encoder: &Encoder) -> Result<String> {
    let cosine = |a: &str, b: &str| -> Result<f32> {
        let vectors = encoder.encode_batch(&[a, b])?.embeddings;
        let (a, b) = vectors.split_at(vectors.len() / 2);
        Ok(crate::search::dot(a, b))
    };
    let mut text =
        "## What it confuses\n\nCosines of this file, for a look at its judgement: what a \
                    person would call different should be low.\n\n\
                    | | | | cosine |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for (kind, a, b) in PAIRS {
        let _ = writeln!(text, "| {kind} | {a} | {b} | {:.2} |", cosine(a, b)?);
    }
    text += "\n## Associations\n\nDifferences of two cosines, for groups and occupations put into the \
             same sentence: how much nearer it lies to a liked than to a disliked person, and to a \
             woman than to a man. Numbers far apart are associations that the vectors carry from what \
             people wrote.\n\n| | liked − disliked |\n| --- | --- |\n";
    let difference = |what: &str, a: &str, b: &str| -> Result<f32> {
        let sentence = OF_GROUP.replace("{}", what);
        Ok(cosine(&sentence, a)? - cosine(&sentence, b)?)
    };
    for group in GROUPS {
        let _ = writeln!(text, "| {group} | {:+.2} |", difference(group, LIKED, DISLIKED)?);
    }
    text += "\n| | woman − man |\n| --- | --- |\n";
    for occupation in OCCUPATIONS {
        let _ = writeln!(text, "| {occupation} | {:+.2} |", difference(occupation, WOMAN, MAN)?);
    }
    Ok(text + "\n")
}
